"""Academic question answering: textbook answers in chat JSONL."""

from llmft.data.datamodule import InstructionDataModule
from llmft.data.records import Example, Row, turns_of, value_of


class Academic(InstructionDataModule):
    """``messages``: an optional system turn, user and assistant in turn; the last assistant turn is the answer."""

    @staticmethod
    def to_example(row: Row) -> Example:
        """A row's turns but the last, and the last as the answer."""
        *context, answer = turns_of(value_of(row, "messages"))
        return Example(tuple(context), answer.content)
