"""Open Orca: a question under a system prompt, answered by a large model."""

from llmft.data.datamodule import InstructionDataModule
from llmft.data.records import Example, Row, Turn, text_of


class OpenOrca(InstructionDataModule):
    """``id``, ``system_prompt`` (may be empty), ``question`` and ``response``."""

    @staticmethod
    def to_example(row: Row) -> Example:
        """System prompt (where there is one) and question in, response out."""
        system = text_of(row, "system_prompt", blank=True)
        turns = (Turn("user", text_of(row, "question")),)
        if system.strip():
            turns = (Turn("system", system), *turns)
        return Example(turns, text_of(row, "response"), id=text_of(row, "id"))
