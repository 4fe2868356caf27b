"""Open Orca: a question under a system prompt, answered by a large model."""

from llmft.data.datamodule import InstructionDataModule
from llmft.data.records import Example, Row
from llmft.data.row_shapes import openorca_example


class OpenOrca(InstructionDataModule):
    """``id``, ``system_prompt`` (may be empty), ``question`` and ``response``."""

    @staticmethod
    def to_example(row: Row) -> Example:
        """System prompt (where there is one) and question in, response out."""
        return openorca_example(row)
