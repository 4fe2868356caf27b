"""Word differences of two answers."""

from hypothesis import given
from hypothesis import strategies as st

from llmft.report.word_diff import diff_words


def test_differences_are_marked():
    left, right = diff_words("The cat sat.", "The dog sat!")
    assert left == [("The ", False), ("cat", True), (" sat", False), (".", True)]
    assert right == [("The ", False), ("dog", True), (" sat", False), ("!", True)]


@given(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cf"])),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cf"])),
)
def test_marks_lose_nothing(a, b):
    left, right = diff_words(a, b)
    assert "".join(text for text, _ in left) == a
    assert "".join(text for text, _ in right) == b
