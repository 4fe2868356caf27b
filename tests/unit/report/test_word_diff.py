"""Words of an answer that differ from the reference."""

from hypothesis import given
from hypothesis import strategies as st

from llmft.report.word_diff import compare

TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cf"]))


def test_extra_and_missing_words_are_marked():
    reference, answer = compare("The warranty lasts two years.", "the warranty lasts 1 year!")
    assert reference.pieces == [("The warranty lasts ", False), ("two years.", True)]
    assert answer.pieces == [("the warranty lasts ", False), ("1 year!", True)]
    assert (reference.words, answer.words) == (2, 2)  # punctuation is no word


def test_a_word_that_both_have_is_not_marked():
    reference, answer = compare("It costs 1.5 euros", "It costs about 1.5 dollars today")
    assert reference.pieces == [("It costs 1.5 ", False), ("euros", True)]
    assert answer.pieces == [("It costs ", False), ("about", True), (" 1.5 ", False), ("dollars today", True)]
    assert compare("same\n", "same\n")[1] == ([("same\n", False)], 0)


def test_a_han_character_is_a_word():
    reference, answer = compare("保修两年", "保修一年")
    assert reference.pieces == [("保修", False), ("两", True), ("年", False)]
    assert answer.words == 1


@given(TEXTS, TEXTS)
def test_marks_lose_nothing(a, b):
    for text, marked in zip((a, b), compare(a, b), strict=True):
        assert "".join(piece for piece, _ in marked.pieces) == text
