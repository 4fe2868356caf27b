"""Texts as sets of word 5-grams, by hand."""

import numpy as np
import pytest

from llmft.data.preprocessing.word_grams import WordGrams, is_among, jaccard


def similarity(one, other):
    grams = WordGrams.of([one, other])
    return jaccard(grams.text(0), grams.text(1))


def test_a_text_has_a_gram_for_each_place_where_five_words_begin():
    grams = WordGrams.of(["a b c d e f g", "a b c d e", "a b c", "", "a a a a a a a"])
    assert grams.sizes.tolist() == [3, 1, 1, 0, 1]
    assert grams.text(1)[0] in grams.text(0)
    assert all((np.diff(grams.text(0).astype(object)) > 0).tolist())


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("a b c d e f g h", "a b c d e f g x", 3 / 5),  # 4 grams each, the last differs
        ("a b c d e f g h", "x b c d e f g h", 3 / 5),
        ("a b c d e f g h i", "a b c d x f g h i", 0),  # each of 5 grams has the fifth word
        ("Say  it, NOW - please: do!", "say it now please do", 1),
        ("a b c", "a b c", 1),
        ("a b c", "a b d", 0),
        ("a b c", "a b c d", 0),
        ("one two three four", "four three two one", 0),
        ("東京の首都はどこですか", "東京の首都はどこでしょう", 5 / 10),  # 11 and 12 letters: 7 and 8 grams, 5 shared
        ("", "", 1),
        ("", "a", 0),
    ],
)
def test_the_jaccard_index(one, other, expected):
    assert similarity(one, other) == pytest.approx(expected)


def test_grams_are_the_same_in_any_batch():
    texts = ["a b c d e f", "short one", "", "g h i j k l m"]
    whole = WordGrams.of(texts)
    joined = WordGrams.joined([WordGrams.of(texts[:1]), WordGrams.of(texts[1:])])
    for found in (joined, WordGrams.joined([WordGrams.of([text]) for text in texts])):
        assert found.values.tolist() == whole.values.tolist()
        assert found.starts.tolist() == whole.starts.tolist()


def test_grams_that_are_left_out_keep_the_texts_apart():
    grams = WordGrams.of(["a b c d e f", "a b c d e", "b c d e f"])
    left = grams.without(np.sort(grams.text(1)))
    assert left.sizes.tolist() == [1, 0, 1]
    assert left.text(0).tolist() == left.text(2).tolist()
    assert is_among(np.array([1, 5]), np.array([], int)).tolist() == [False, False]
