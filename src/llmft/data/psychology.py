"""Psychology: a person's question with a kind answer (kept) and an unkind one (never read)."""

from llmft.data.datamodule import InstructionDataModule
from llmft.data.records import Example, Row
from llmft.data.row_shapes import psychology_example


class Psychology(InstructionDataModule):
    """``question`` and ``response_j``; ``response_k`` is the rejected answer and stays out of prompts and labels."""

    @staticmethod
    def to_example(row: Row) -> Example:
        """The question, answered by ``response_j``."""
        return psychology_example(row)
