"""Support messages, sorted into a JSON object of intent, product and urgency."""

from llmft.data.datamodule import InstructionDataModule
from llmft.data.records import Example, Row
from llmft.data.row_shapes import support_example


class Support(InstructionDataModule):
    """``message``, and the labels ``intent``, ``product`` and ``urgency``."""

    @staticmethod
    def to_example(row: Row) -> Example:
        """The message, answered by a JSON object of its labels, in this order of keys."""
        return support_example(row)
