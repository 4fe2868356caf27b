"""Data sets: raw rows -> examples -> encoded examples -> batches. What a data set of your own needs is imported from here."""

from typing import TYPE_CHECKING, Any

from llmft.data.messages import turns_of
from llmft.data.records import Example, NotTrainedError, Row, RowError, Turn, checked_text, shown, text_of, value_of
from llmft.data.row_fields import chat_example

if TYPE_CHECKING:
    from llmft.data.datamodule import InstructionDataModule

__all__ = [
    "Example",
    "InstructionDataModule",
    "NotTrainedError",
    "Row",
    "RowError",
    "Turn",
    "chat_example",
    "checked_text",
    "shown",
    "text_of",
    "turns_of",
    "value_of",
]


def __getattr__(name: str) -> Any:
    """Import ``InstructionDataModule`` on first use: it imports Lightning, which the processes that encode do not need."""
    if name == "InstructionDataModule":
        from llmft.data.datamodule import InstructionDataModule

        return InstructionDataModule
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
