"""Keyword question answering: the answer is a list of keywords."""

from llmft.data.datamodule import InstructionDataModule
from llmft.data.records import Example, Row, RowError, Turn, checked_text, shown, text_of, value_of


class KeywordQA(InstructionDataModule):
    """``question`` and ``answer_keywords``, a list of strings."""

    @staticmethod
    def to_example(row: Row) -> Example:
        """The question, answered by its keywords joined with ", "."""
        question = text_of(row, "question")
        keywords = value_of(row, "answer_keywords")
        if not isinstance(keywords, list) or not keywords:
            raise RowError("answer_keywords", f"must be a list of strings, got {shown(keywords)}")
        texts = [checked_text(keyword, f"answer_keywords[{i}]") for i, keyword in enumerate(keywords)]
        return Example((Turn("user", question),), ", ".join(texts))
