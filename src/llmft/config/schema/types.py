"""Value types of config keys: a description for error messages and a predicate."""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple


class Rule(NamedTuple):
    """A value type.

    Attributes:
        description: Completes "must be ..." in an error message.
        accepts: Whether a value is valid.
    """

    description: str
    accepts: Callable[[Any], bool]


def is_number(value: Any) -> bool:
    """Whether a value is an int or float, and not a bool."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_int(value: Any) -> bool:
    """Whether a value is an int, and not a bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_list(value: Any) -> bool:
    """Whether a value is a list (a string is not)."""
    return isinstance(value, Sequence) and not isinstance(value, str)


def is_text_list(value: Any) -> bool:
    """Whether a value is a non-empty list of strings."""
    return is_list(value) and len(value) > 0 and all(map(TEXT.accepts, value))


def one_of(*options: str) -> Rule:
    """One of several strings."""
    return Rule(f"one of {', '.join(options)}", lambda value: value in options)


TEXT = Rule("a string", lambda v: isinstance(v, str) and bool(v) and "\0" not in v)
TEXT_OR_NULL = Rule("a string or null", lambda v: v is None or TEXT.accepts(v))
FLAG = Rule("true or false", lambda v: isinstance(v, bool))
COUNT = Rule("a whole number of at least 1", lambda v: is_int(v) and v >= 1)
COUNT_OR_NULL = Rule("a whole number of at least 1, or null", lambda v: v is None or COUNT.accepts(v))
COUNT_OR_OFF = Rule("a whole number of at least 1, or -1 for no limit", lambda v: v == -1 or COUNT.accepts(v))
FROM_ZERO = Rule("a whole number of at least 0", lambda v: is_int(v) and v >= 0)
POSITIVE = Rule("a number above 0", lambda v: is_number(v) and 0 < v < float("inf"))
FLOAT32 = 3.4e38  # just below the largest float32
RATE = Rule("a number above 0 that float32 can hold", lambda v: is_number(v) and 0 < v < FLOAT32)
NOT_NEGATIVE = Rule("a number of at least 0", lambda v: is_number(v) and 0 <= v < float("inf"))
SHARE = Rule("a number from 0 to 1", lambda v: is_number(v) and 0 <= v <= 1)
DROPOUT = Rule("a number from 0 to below 1", lambda v: is_number(v) and 0 <= v < 1)

# Names become part of a folder's name.
NAME = Rule(
    "a name of at most 100 bytes without / and control characters, and no dot at its front",
    lambda v: (
        TEXT.accepts(v) and v.isprintable() and v[0] != "." and not set("/\\") & set(v) and len(v.encode()) <= 100
    ),
)
ENVIRONMENT = Rule("the name of an environment variable", lambda v: isinstance(v, str) and v.isidentifier())
NAMES = Rule("a list of strings", lambda v: is_list(v) and all(isinstance(item, str) and item.strip() for item in v))

HUB_NAME = re.compile(r"[\w-][\w.-]{0,95}/[\w-][\w.-]{0,95}", re.ASCII)
SEED = Rule("a whole number from 0 to 4294967295", lambda v: is_int(v) and 0 <= v < 2**32)

SIZE = Rule(
    "a size such as 500MB or 4GB",
    lambda v: isinstance(v, str) and re.fullmatch(r"\d+(\.\d+)?(KB|MB|GB|TB)", v, re.IGNORECASE) is not None,
)
