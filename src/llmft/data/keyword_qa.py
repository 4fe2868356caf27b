"""Keyword question answering: the answer is a list of keywords."""

from llmft.data.datamodule import InstructionDataModule
from llmft.data.records import Example, Row
from llmft.data.row_shapes import keyword_example


class KeywordQA(InstructionDataModule):
    """``question`` and ``answer_keywords``, a list of strings, or its text in the cell of a table."""

    @staticmethod
    def to_example(row: Row) -> Example:
        """The question, answered by its keywords joined with ", "."""
        return keyword_example(row)
