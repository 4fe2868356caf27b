"""Support messages, sorted into a JSON object of intent, product and urgency."""

import json

from llmft.data.datamodule import InstructionDataModule
from llmft.data.records import Example, Row, Turn, text_of

KEYS = ("intent", "product", "urgency")


class Support(InstructionDataModule):
    """``message``, and the labels ``intent``, ``product`` and ``urgency``."""

    @staticmethod
    def to_example(row: Row) -> Example:
        """The message, answered by a JSON object of its labels, in this order of keys."""
        labels = {key: text_of(row, key) for key in KEYS}
        return Example((Turn("user", text_of(row, "message")),), json.dumps(labels, ensure_ascii=False))
