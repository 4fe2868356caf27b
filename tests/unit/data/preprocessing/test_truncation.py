"""Budgets: what is trimmed, cut and dropped, token by token (a byte is a token here)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmft.config.groups import prompt_config
from llmft.data.preprocessing.truncation import TooLongError, Truncation, _longest
from llmft.data.records import Example, Turn
from llmft.data.tokenization.build import codec_for


@pytest.fixture
def codec(gpt2_tokenizer):
    return codec_for("causal", gpt2_tokenizer, prompt_config("plain"), None, "answer")[0]


def prompt_of(row, codec):
    return codec.tokenizer.decode(row.input_ids[: row.prompt_length])


# "SSSSSSSS\n\nQQQQ\n" has 15 tokens, "AAA" and its stop 4
LONG = Example((Turn("system", "S" * 8), Turn("user", "Q" * 4)), "AAA", "1", "f:1")


def test_what_fits_is_left_alone(codec):
    row, trimmed, _ = Truncation(15, 4, "error").fit(LONG, codec)
    assert (prompt_of(row, codec), trimmed, row.cut, row.place) == ("SSSSSSSS\n\nQQQQ\n", (), False, "f:1")


@pytest.mark.parametrize("policy", ["error", "drop", "trim_answer"])
def test_a_long_prompt_is_refused_by_every_policy_but_its_own(codec, policy):
    with pytest.raises(TooLongError, match=r"has 15 tokens, data.max_prompt_tokens is 14") as error:
        Truncation(14, 4, policy).fit(LONG, codec)
    assert error.value.part == "prompt"


@pytest.mark.parametrize("policy", ["error", "drop", "trim_prompt"])
def test_a_long_answer_is_refused_by_every_policy_but_its_own(codec, policy):
    with pytest.raises(TooLongError, match=r"has 4 tokens, data.max_answer_tokens is 3"):
        Truncation(15, 3, policy).fit(LONG, codec)


def test_a_prompt_loses_the_end_of_its_system_text_and_keeps_the_question(codec):
    row, trimmed, before = Truncation(12, 4, "trim_prompt").fit(LONG, codec)
    assert (prompt_of(row, codec), trimmed, before) == ("SSSSS\n\nQQQQ\n", ("system",), 15)
    assert row.labels[-1] == codec.stop_id


def test_then_the_input_and_never_the_question(codec):
    example = Example((Turn("system", "SSSS"), Turn("user", "QQQQ", "IIII")), "A")
    row, trimmed, _ = Truncation(11, 4, "trim_prompt").fit(example, codec)
    assert prompt_of(row, codec) == "\n\nQQQQ\n\nII\n"
    assert trimmed == ("system", "input")
    with pytest.raises(TooLongError, match=r"has 17 tokens, data.max_prompt_tokens is 5"):
        Truncation(5, 4, "trim_prompt").fit(example, codec)


def test_the_longest_part_is_cut_first(codec):
    example = Example((Turn("system", "SS"), Turn("user", "QQQQ", "IIIIIIII")), "A")
    row, trimmed, _ = Truncation(14, 4, "trim_prompt").fit(example, codec)
    assert (prompt_of(row, codec), trimmed) == ("SS\n\nQQQQ\n\nIII\n", ("input",))


def test_a_cut_answer_has_its_head_and_no_stop(codec):
    row, trimmed, _ = Truncation(15, 3, "trim_answer").fit(LONG, codec)
    assert (codec.tokenizer.decode(row.input_ids[row.prompt_length :]), row.cut, trimmed) == ("AAA", True, ())


@given(length=st.integers(1, 400), spare=st.integers(0, 300), per_token=st.integers(1, 7))
def test_the_longest_that_fits_fills_the_budget(length, spare, per_token):
    """A token for every few characters: what is kept has as many tokens as there is room for."""
    asked = []

    def excess(characters):
        asked.append(characters)
        return -(-characters // per_token) - spare

    if excess(length) <= 0:
        return
    kept = _longest(excess, length, -spare, excess(length))
    assert -(-kept // per_token) == spare or (spare == 0 and kept == 0)
    assert len(asked) < 40
