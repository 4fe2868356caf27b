"""What a value can have to be, in words and as a test."""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple


class Rule(NamedTuple):
    """What a value must be, in words and as a test."""

    words: str
    holds: Callable[[Any], bool]


def number(value: Any) -> bool:
    """A number, and no flag."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_int(value: Any) -> bool:
    """A whole number, and no flag."""
    return isinstance(value, int) and not isinstance(value, bool)


def listed(value: Any) -> bool:
    """A list; a text is none."""
    return isinstance(value, Sequence) and not isinstance(value, str)


def texts(value: Any) -> bool:
    """A list of texts, and not empty."""
    return listed(value) and len(value) > 0 and all(map(TEXT.holds, value))


def one_of(*options: str) -> Rule:
    """One of some words."""
    return Rule(f"one of {', '.join(options)}", lambda value: value in options)


TEXT = Rule("text", lambda v: isinstance(v, str) and bool(v) and "\0" not in v)
TEXT_OR_NULL = Rule("text or null", lambda v: v is None or TEXT.holds(v))
FLAG = Rule("true or false", lambda v: isinstance(v, bool))
COUNT = Rule("a whole number of at least 1", lambda v: is_int(v) and v >= 1)
COUNT_OR_NULL = Rule("a whole number of at least 1, or null", lambda v: v is None or COUNT.holds(v))
COUNT_OR_OFF = Rule("a whole number of at least 1, or -1 for no limit", lambda v: v == -1 or COUNT.holds(v))
FROM_ZERO = Rule("a whole number of at least 0", lambda v: is_int(v) and v >= 0)
POSITIVE = Rule("a number above 0", lambda v: number(v) and 0 < v < float("inf"))
FLOAT32 = 3.4e38  # the largest number, nearly
RATE = Rule("a number above 0 that float32 can hold", lambda v: number(v) and 0 < v < FLOAT32)
NOT_NEGATIVE = Rule("a number of at least 0", lambda v: number(v) and 0 <= v < float("inf"))
SHARE = Rule("a number from 0 to 1", lambda v: number(v) and 0 <= v <= 1)
DROPOUT = Rule("a number from 0 to below 1", lambda v: number(v) and 0 <= v < 1)

# It becomes part of a folder's name.
NAME = Rule(
    "a name of at most 100 bytes without / and control characters, and no dot at its front",
    lambda v: TEXT.holds(v) and v.isprintable() and v[0] != "." and not set("/\\") & set(v) and len(v.encode()) <= 100,
)
ENVIRONMENT = Rule("the name of an environment variable", lambda v: isinstance(v, str) and v.isidentifier())
NAMES = Rule("a list of texts", lambda v: listed(v) and all(isinstance(one, str) and one.strip() for one in v))

HUB_NAME = re.compile(r"[\w-][\w.-]{0,95}/[\w-][\w.-]{0,95}", re.ASCII)
SEED = Rule("a whole number from 0 to 4294967295", lambda v: is_int(v) and 0 <= v < 2**32)

SIZE = Rule(
    "a size such as 500MB or 4GB",
    lambda v: isinstance(v, str) and re.fullmatch(r"\d+(\.\d+)?(KB|MB|GB|TB)", v, re.IGNORECASE) is not None,
)
