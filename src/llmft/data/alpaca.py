"""Alpaca instructions: an instruction, sometimes an input, and the output; its descendants add a system prompt and a history."""

from llmft.data.datamodule import InstructionDataModule
from llmft.data.records import Example, Row, Turn, text_of
from llmft.data.row_fields import history_of, optional_text, row_weight


class Alpaca(InstructionDataModule):
    """``instruction``, ``input`` (may be empty) and ``output``; ``system``, ``history`` and ``weight`` where a row has them."""

    @staticmethod
    def to_example(row: Row) -> Example:
        """The instruction with its input as one user turn."""
        given = text_of(row, "input", blank=True)
        turn = Turn("user", text_of(row, "instruction"), given if given.strip() else "")
        context = (*history_of(row), turn)
        example = Example(context, text_of(row, "output"), weight=row_weight(row))
        system = optional_text(row, "system")
        return example.with_system(system if system.strip() else None)
