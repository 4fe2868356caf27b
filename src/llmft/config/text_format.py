"""Encodings and delimiters of text files; imports nothing, because every command line needs it."""

import codecs

# Names for characters that a shell or Hydra's grammar takes for something else.
DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|", "\\t": "\t"}
# Codecs of Python that are no encoding of a file.
NOT_OF_FILES = ("idna", "punycode", "raw_unicode_escape", "unicode_escape", "undefined")


def is_encoding(name: str) -> bool:
    """Whether Python knows a name as the encoding of text."""
    try:
        found = codecs.lookup(name)
    except (LookupError, ValueError):
        return False
    return found._is_text_encoding and found.name.replace("-", "_") not in NOT_OF_FILES  # pyright: ignore[reportAttributeAccessIssue]


def delimiter_character(value: str) -> str:
    """The character of ``data.delimiter``, which may be named: ``tab``, ``semicolon``."""
    return DELIMITERS.get(value, value)


def is_delimiter(value: str) -> bool:
    """Whether a value is one character, or names one."""
    character = delimiter_character(value)
    return len(character) == 1 and character not in '"\r\n\0'
