"""What each token is: prompt, reasoning, answer, call, stop."""

import pytest

from llmft.config.groups import prompt_config
from llmft.data.preprocessing.truncation import Truncation
from llmft.data.records import Example, Turn
from llmft.data.tokenization.build import codec_for
from llmft.diagnostics.token_kinds import kind_spans, token_kinds
from tests.support.chat_templates import call, tokenizer_of

USER = Turn("user", "Time?")
CALL = call("get_time", city="Oslo")
WRITTEN = '<tool_call>\n{"name": "get_time", "arguments": {"city": "Oslo"}}\n</tool_call>'
STOP = ("stop", "<|im_end|>")


@pytest.mark.parametrize(
    ("answer", "spans"),
    [
        (Turn("assistant", "Noon."), [("reasoning", "<think>\n\n</think>\n\n"), ("answer", "Noon."), STOP]),
        (
            Turn("assistant", "Noon.", reasoning="Look."),
            [("reasoning", "<think>\nLook.\n</think>\n\n"), ("answer", "Noon."), STOP],
        ),
        (
            Turn("assistant", "I look.", reasoning="Look.", tool_calls=(CALL,)),
            [
                ("reasoning", "<think>\nLook.\n</think>\n\n"),
                ("answer", "I look."),
                ("call", f"\n{WRITTEN}"),
                STOP,
            ],
        ),
        (
            Turn("assistant", "", tool_calls=(CALL,)),
            [("reasoning", "<think>\n\n</think>\n\n"), ("call", WRITTEN), STOP],
        ),
    ],
)
def test_kinds_of_an_answer(answer, spans):
    codec, _ = codec_for("causal", tokenizer_of("qwen3"), prompt_config("chat"), None, "answer")
    example = Example.from_turns([USER, answer])
    row = Truncation(999, 999, "error").fit(example, codec).row
    found = list(kind_spans(token_kinds(row, example, codec), row.input_ids))
    assert found[0] == ("prompt", row.input_ids[: row.prompt_length])
    assert [(kind, codec.tokenizer.decode(ids)) for kind, ids in found[1:]] == spans


def test_a_cut_answer_has_no_stop(t5_tokenizer):
    codec, _ = codec_for("seq2seq", t5_tokenizer, prompt_config("t5"), None, "answer")
    example = Example((USER,), "Noon.")
    row = Truncation(999, 3, "trim_answer").fit(example, codec).row
    assert token_kinds(row, example, codec) == ["answer"] * 3
    whole = Truncation(999, 9, "error").fit(example, codec).row
    assert token_kinds(whole, example, codec) == ["answer"] * (len(whole.labels) - 1) + ["stop"]
