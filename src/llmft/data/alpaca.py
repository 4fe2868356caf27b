"""Alpaca instructions: an instruction, sometimes an input, and the output."""

from llmft.data.datamodule import InstructionDataModule
from llmft.data.records import Example, Row, Turn, text_of


class Alpaca(InstructionDataModule):
    """``instruction``, ``input`` (may be empty) and ``output``."""

    @staticmethod
    def to_example(row: Row) -> Example:
        """The instruction with its input as one user turn."""
        given = text_of(row, "input", blank=True)
        turn = Turn("user", text_of(row, "instruction"), given if given.strip() else "")
        return Example((turn,), text_of(row, "output"))
