"""Value types of the keys that say how data files are read: ``data.encoding`` and ``data.delimiter``."""

from typing import Annotated

from llmft.config.schema.types import Must, valid_if
from llmft.config.text_format import is_delimiter, is_encoding

Encoding = Annotated[
    str, valid_if(is_encoding), Must("the name of an encoding such as utf-8, utf-16 or cp1252 (Western European)")
]
Delimiter = Annotated[
    str,
    valid_if(is_delimiter),
    Must("one character, or comma, semicolon, tab or pipe"),
]
