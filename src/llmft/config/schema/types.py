"""Value types of config keys, each with the text that completes "must be ..." in an error message."""

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, Field


@dataclass(frozen=True)
class Must:
    """Annotation of a value type: completes "must be ..." in an error message.

    Attributes:
        text: The valid values in words, without ", or null", which an optional type adds.
    """

    text: str


@dataclass(frozen=True)
class Replaced:
    """Annotation of a value type: a value in a YAML file that is replaced by a valid one before the check.

    Attributes:
        value: The value in the file.
    """

    value: str


def valid_if(accepts: Callable[[Any], bool]) -> AfterValidator:
    """A pydantic validator from a predicate; the message of a refused value comes from ``Must``."""

    def check(value: Any) -> Any:
        if not accepts(value):
            raise ValueError("not accepted")
        return value

    return AfterValidator(check)


FLOAT32 = 3.4e38  # just below the largest float32
HUB_NAME = re.compile(r"[\w-][\w.-]{0,95}/[\w-][\w.-]{0,95}", re.ASCII)

Text = Annotated[str, Field(pattern=r"^[^\x00]+$"), Must("a string")]
Day = Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9][0-9]-[0-9][0-9]$"), Must("a date such as 2026-11-29")]
Files = Annotated[Text | Annotated[list[Text], Field(min_length=1)] | None, Must("a string, a list of files, or null")]
Count = Annotated[int, Field(ge=1), Must("a whole number of at least 1")]
FromZero = Annotated[int, Field(ge=0), Must("a whole number of at least 0")]
CountOrOff = Annotated[
    int, Field(ge=-1), valid_if(lambda v: v != 0), Must("a whole number of at least 1, or -1 for no limit")
]
# int | float keeps an int as it is; pydantic would convert it to the float of a plain `float` type
LARGEST = sys.float_info.max
Positive = Annotated[int | float, Field(gt=0, le=LARGEST), Must("a number above 0")]
NotNegative = Annotated[int | float, Field(ge=0, le=LARGEST), Must("a number of at least 0")]
LearningRate = Annotated[int | float, Field(gt=0, lt=FLOAT32), Must("a number above 0 that float32 can hold")]
Fraction = Annotated[int | float, Field(ge=0, le=1), Must("a number from 0 to 1")]
PositiveFraction = Annotated[int | float, Field(gt=0, le=1), Must("a number above 0, up to 1")]
BelowOne = Annotated[int | float, Field(ge=0, lt=1), Must("a number from 0 to below 1")]
Seed = Annotated[int, Field(ge=0, lt=2**32), Must("a whole number from 0 to 4294967295")]

# Names become part of a folder's name.
Name = Annotated[
    str,
    valid_if(
        lambda v: (
            v
            and v.isprintable()
            and v[0] != "."
            and not set("/\\") & set(v)
            and len(v.encode("utf-8", "replace")) <= 100
        )
    ),
    Must("a name of at most 100 bytes without / and control characters, and no dot at its front"),
]
EnvironmentVariable = Annotated[str, valid_if(str.isidentifier), Must("the name of an environment variable")]
Names = Annotated[list[Annotated[str, Field(pattern=r"\S")]], Must("a list of strings")]
Seeds = Annotated[list[Seed], Field(min_length=1), Must("a list of seeds")]
Size = Annotated[
    str, Field(pattern=r"^[0-9]+(\.[0-9]+)?([kK]|[mM]|[gG]|[tT])[bB]$"), Must("a size such as 500MB or 4GB")
]
HubName = Annotated[str, Field(pattern=rf"^{HUB_NAME.pattern}$"), Must("owner/name")]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$"), Must("a SHA-256 (64 hexadecimal digits)")]
