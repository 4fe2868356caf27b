"""How the files of a data set are read where their content is not to decide: ``data.encoding``, ..."""

from collections.abc import Callable
from dataclasses import dataclass, field

from llmft.config.text_format import DELIMITERS
from llmft.utils.shell import argument


def _ignore(line: str) -> None:
    pass


@dataclass(frozen=True)
class FileFormat:
    """How files are read; what is None follows from their content.

    Attributes:
        encoding: Of text files, a name that Python knows.
        delimiter: The character between the fields of a CSV or TSV file.
        sheet: The sheet of a spreadsheet.
        keys: The section of these keys, ``data`` or ``data.sets.NAME``, for messages; empty for files that are no data set.
        say: Takes a line about what the content of a file has decided.
    """

    encoding: str | None = None
    delimiter: str | None = None
    sheet: str | None = None
    keys: str = ""
    say: Callable[[str], None] = field(default=_ignore, compare=False)

    def settings(self) -> list[str | None]:
        """What the rows depend on."""
        return [self.encoding, self.delimiter, self.sheet]

    def key(self, name: str, value: str) -> str:
        """``data.NAME=value`` for a shell; empty where there is no such key."""
        if name == "delimiter":
            value = next((word for word, character in DELIMITERS.items() if character == value), value)
        return argument(f"{self.keys}.{name}", value) if self.keys else ""

    def told(self, line: str, name: str, value: str) -> None:
        """Say a line about a file, with the key that would pin what was found."""
        key = self.key(name, value)
        self.say(f"{line} ({key})" if key else line)
