"""Encoding many rows at once gives what encoding each alone gives, and what is said to be lossless is."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmft.config.groups import prompt_config
from llmft.data.records import Turn
from llmft.data.tokenization.build import codec_for
from llmft.data.tokenization.template import PromptTemplate
from llmft.data.tokenization.tokenizer import missing_bytes

CASES = [
    ("causal", "llama", "chat"),
    ("causal", "gpt2", "plain"),
    ("causal", "gpt2", "alpaca"),
    ("causal", "llama", "inst"),
    ("seq2seq", "t5", "t5"),
]
text = st.text(st.sampled_from("ab \n:<|/s>é\u2028"), max_size=12) | st.sampled_from(
    ["</s>", "<s>", "\n\n", " x", "<|user|>"]
)


def codec(name, request, prompt, family):
    tokenizer = request.getfixturevalue(f"{name}_tokenizer")
    source = prompt_config(prompt) if prompt != "chat" else prompt_config("chat")
    return codec_for(family, tokenizer, source, None, "answer")[0]


@pytest.mark.parametrize(("family", "name", "prompt"), CASES)
@settings(max_examples=30)
@given(rows=st.lists(st.tuples(text, text, text), min_size=1, max_size=6))
def test_together_is_as_alone(request, family, name, prompt, rows):
    made = codec(name, request, prompt, family)
    contexts = [(Turn("system", s or "S"), Turn("user", q or "Q")) for s, q, _ in rows]
    prompts = [made.template.render(context) for context in contexts]
    made.look_ahead([(p, answer) for p, (_, _, answer) in zip(prompts, rows, strict=True)])
    together = [made.encode(p, answer) for p, (_, _, answer) in zip(prompts, rows, strict=True)]
    for row, p, (_, _, answer) in zip(together, prompts, rows, strict=True):
        alone = codec(name, request, prompt, family)
        assert row == alone.encode(p, answer)
        assert row.input_ids[: row.prompt_length] == alone.prompt_ids(p)  # what generation starts from


def test_a_byte_that_the_tokenizer_lacks_is_looked_for(gpt2_tokenizer):
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    assert missing_bytes(gpt2_tokenizer) == b""
    backend = Tokenizer.from_str(
        gpt2_tokenizer.backend_tokenizer.to_str().replace('"\u00f1":', '"\u4e2d":').replace('"\u0106":', '"\u4e2e":')
    )
    poorer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>")
    assert missing_bytes(poorer) == bytes([6, 0xF1])
    made = codec_for("causal", poorer, prompt_config("plain"), None, "answer")[0]
    for given_, lost in (("plain \u00f1", ""), ("a\x06b", "\x06"), ("\U00050000", "\U00050000")):
        assert made.lost_characters(given_, made.tokenizer(given_)["input_ids"]).replace("\ufffd", "") == lost


def test_a_tokenizer_that_changes_text_is_asked_each_time(t5_tokenizer):
    from tokenizers import normalizers
    from transformers import PreTrainedTokenizerFast

    backend = PreTrainedTokenizerFast(tokenizer_object=t5_tokenizer.backend_tokenizer).backend_tokenizer
    backend.normalizer = normalizers.Lowercase()
    assert missing_bytes(PreTrainedTokenizerFast(tokenizer_object=backend)) is None
    backend.normalizer = None


@pytest.mark.parametrize("byte", [0, 6, 0x20, 0x41, 0x7F, 0xAD, 0xC3, 0xF1])
def test_bytes_are_written_as_the_library_writes_them(byte):
    from tokenizers.pre_tokenizers import ByteLevel

    from llmft.data.tokenization.tokenizer import _byte_token

    assert _byte_token(byte) in ByteLevel.alphabet()
    if byte < 0x80:
        [(piece, _)] = ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(chr(byte))
        assert _byte_token(byte) == piece


def test_a_template_without_typed_control_tokens_is_rendered_as_one_with():
    template = PromptTemplate("{% for m in messages %}<s>{{ m.content }}</s>{% endfor %}", ("<s>", "</s>"))
    assert template.render((Turn("user", "a"),)).pieces == ("", "<s>", "a", "</s>", "")
    assert template.render((Turn("user", "a<s>b"),)).pieces == ("", "<s>", "a<s>b", "</s>", "")
