"""Academic question answering: textbook answers in chat JSONL, and any other file of conversations."""

from llmft.data.datamodule import InstructionDataModule
from llmft.data.records import Example, Row
from llmft.data.row_fields import chat_example


class Academic(InstructionDataModule):
    """``messages``: an optional system turn, user and assistant in turn; the last assistant turn is the answer.

    ``system``, ``tools``, ``weight`` and ``label`` are read where a row has them.
    """

    @staticmethod
    def to_example(row: Row) -> Example:
        """A row's turns but the last, and the last as the answer."""
        return chat_example(row)
