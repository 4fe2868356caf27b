"""Alpaca instructions: an instruction, sometimes an input, and the output; its descendants add a system prompt and a history."""

from llmft.data.datamodule import InstructionDataModule
from llmft.data.records import Example, Row
from llmft.data.row_shapes import alpaca_example


class Alpaca(InstructionDataModule):
    """``instruction``, ``input`` (may be missing) and ``output``; ``system``, ``history`` and ``weight`` where there."""

    @staticmethod
    def to_example(row: Row) -> Example:
        """The instruction with its input as one user turn; the input alone if the instruction is empty."""
        return alpaca_example(row)
