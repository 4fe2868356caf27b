"""Similar texts are found, and none is missed."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from llmft.data.preprocessing.similar_texts import similar, template_grams
from llmft.data.preprocessing.word_grams import WordGrams, jaccard

WORDS = [f"w{n}" for n in range(40)]
ORDERED = " ".join(WORDS)  # 36 grams
NONE = WordGrams.of([])


def found(held, *train):
    return similar(WordGrams.of(held), [WordGrams.of(part) for part in train], NONE)


def test_one_other_word_in_forty_is_nearly_equal():
    changed = ORDERED.replace("w20", "other")  # 5 of 36 grams: 31 / 41
    assert found(["new " + ORDERED[:9], changed], ["not", "it"], ["no", ORDERED, ORDERED]) == [(1, 3, 31 / 41)]
    assert found([changed.replace("w10", "more")], [ORDERED]) == []  # 26 / 46
    assert found([ORDERED], [" ".join(WORDS[:30])]) == [(0, 0, 26 / 36)]
    assert found([ORDERED], [" ".join(WORDS[:28])]) == []  # 24 / 36


def test_a_template_that_many_share_is_not_compared():
    template = " ".join(f"t{n}" for n in range(60))
    prompts = [f"{template} {name} one two three four five six" for name in ("Paris", "Rome", "Oslo", "Bern", "Riga")]
    grams = WordGrams.of(prompts)
    assert len(template_grams(grams)) == 56 + 2  # of t0 to t59, and of the six words behind the name
    assert found(prompts[:1], prompts[1:])
    assert similar(WordGrams.of(prompts[:1]), [WordGrams.of(prompts[1:])], grams) == []
    assert similar(WordGrams.of(prompts[:1]), [WordGrams.of(prompts)], grams) == [(0, 0, 1.0)]


def test_short_prompts_are_compared_as_a_whole():
    assert found(["what is love"], ["What is love?", "what is"]) == [(0, 0, 1.0)]
    assert found(["what is love", "?!"], ["what is hate", "!"]) == []


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), letters=st.integers(2, 6))
def test_no_pair_is_missed(seed, letters):
    """All pairs, one by one; texts of few different words have many grams in common."""
    draw = random.Random(seed)

    def text():
        return " ".join(draw.choices("abcdef"[:letters], k=draw.randint(1, 14)))

    held, train = [text() for _ in range(12)], [text() for _ in range(40)]
    one, other = WordGrams.of(held), WordGrams.of(train)
    scores = [[jaccard(one.text(i), other.text(j)) for j in range(40)] for i in range(12)]
    expected = [(i, next((j for j, s in enumerate(row) if s >= 0.7), None)) for i, row in enumerate(scores)]
    parts = [WordGrams.of(train[:17]), WordGrams.of(train[17:])]
    assert [pair[:2] for pair in similar(one, parts, NONE)] == [pair for pair in expected if pair[1] is not None]
