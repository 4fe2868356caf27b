"""Which fields of a row its data set never looked at: they are counted, so that none is ignored in silence."""

from collections.abc import Iterator
from typing import Any

EMPTY = (None, "", [], {})


class TrackedRow(dict[str, Any]):
    """A row that remembers which of its fields were read; objects in its lists (turns of a conversation) do too."""

    def __init__(self, row: dict[str, Any]) -> None:
        super().__init__(row)
        self._unread = dict.fromkeys(row)
        self._lists: dict[str, list[Any]] = {}

    def __getitem__(self, field: str) -> Any:
        self._unread.pop(field, None)
        value = super().__getitem__(field)
        if type(value) is not list or field in self._lists:
            return value
        tracked = [TrackedRow(entry) if type(entry) is dict else entry for entry in value]
        self._lists[field] = tracked
        self[field] = tracked
        return tracked

    def get(self, field: str, default: Any = None) -> Any:
        """As of a dict, and the field is read."""
        return self[field] if field in self else default  # noqa: SIM401 (it is this method)

    def items(self) -> Any:
        """As of a dict, and all fields are read."""
        self._unread = {}
        return super().items()

    def values(self) -> Any:
        """As of a dict, and all fields are read."""
        self._unread = {}
        return super().values()

    def __iter__(self) -> Iterator[str]:
        return super().__iter__()  # with a method of its own, ``{**row}`` calls ``__getitem__``

    def unread(self) -> set[str]:
        """Names of the fields with a value that were not read: ``meta``, ``messages[].meta``."""
        found = {name for name in self._unread if dict.get(self, name) not in EMPTY}
        for name, entries in self._lists.items():
            for entry in entries:
                if isinstance(entry, TrackedRow):
                    found |= {f"{name}[].{inner}" for inner in entry.unread()}
        return found
