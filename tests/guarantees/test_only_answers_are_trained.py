"""Labels: the answer and its one stop token, one BOS, the prompt's ids as generation feeds them; users' text stays text."""

from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from llmft.config.groups import prompt_config
from llmft.data.preprocessing.truncation import Truncation
from llmft.data.psychology import Psychology
from llmft.data.records import Example, Turn
from llmft.data.tokenization.build import codec_for
from llmft.data.tokenization.codec import IGNORED
from llmft.models.backbone.tiny import GEMMA_TEMPLATE, LLAMA_TEMPLATE, byte_tokenizer

CORPUS = [
    "Below is an instruction that describes a task.",
    "### Response:\nYes, it is.",
    "the cat sat on the mat\n\n",
    "naïve café 你好",
] * 20
END = "<|endoftext|>"


def gpt2_like() -> Any:
    """BPE over bytes, trained here; BOS, EOS and pad are one token."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(vocab_size=400, special_tokens=[END], initial_alphabet=alphabet, show_progress=False),  # pyright: ignore[reportCallIssue]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token=END, eos_token=END, pad_token=END, clean_up_tokenization_spaces=False
    )


def llama_like(template: str | None) -> Any:
    """Unigram with a dummy prefix space and a BOS before raw text, as sentencepiece models have them."""
    raw = Tokenizer(models.Unigram())
    raw.pre_tokenizer = pre_tokenizers.Metaspace()
    raw.decoder = decoders.Metaspace()
    specials = ["<unk>", "<s>", "</s>"]
    raw.train_from_iterator(
        CORPUS,
        trainers.UnigramTrainer(vocab_size=200, special_tokens=specials, unk_token="<unk>", show_progress=False),  # pyright: ignore[reportCallIssue]
    )
    raw.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    tokenizer.chat_template = template
    return tokenizer


def t5_like() -> Any:
    """Unigram with an EOS behind raw text."""
    raw = Tokenizer(models.Unigram())
    raw.pre_tokenizer = pre_tokenizers.Metaspace()
    raw.decoder = decoders.Metaspace()
    specials = ["<pad>", "</s>", "<unk>"]
    raw.train_from_iterator(
        CORPUS,
        trainers.UnigramTrainer(vocab_size=200, special_tokens=specials, unk_token="<unk>", show_progress=False),  # pyright: ignore[reportCallIssue]
    )
    raw.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>", eos_token="</s>", pad_token="<pad>")


def chat_like(template: str, *more: str) -> Any:
    roles = {"pad_token": "<pad>", "eos_token": "</s>", "bos_token": "<bos>", "unk_token": "<unk>"}
    tokenizer = byte_tokenizer(roles, more=more)
    tokenizer.chat_template = template
    return tokenizer


CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TOKENIZERS = {
    "byte-gpt2": ("causal", lambda: byte_tokenizer({"bos_token": END, "eos_token": END, "pad_token": END})),
    "bpe-gpt2": ("causal", gpt2_like),
    "unigram-llama": ("causal", lambda: llama_like(None)),
    "byte-t5": ("seq2seq", lambda: byte_tokenizer({"pad_token": "<pad>", "eos_token": "</s>"}, ends_with_eos=True)),
    "unigram-t5": ("seq2seq", t5_like),
    "chat-zephyr": ("causal", lambda: chat_like(LLAMA_TEMPLATE)),
    "chat-gemma": ("causal", lambda: chat_like(GEMMA_TEMPLATE, "<start_of_turn>", "<end_of_turn>")),
    "chat-chatml": ("causal", lambda: chat_like(CHATML, "<|im_start|>", "<|im_end|>")),
    "chat-unigram": ("causal", lambda: llama_like(LLAMA_TEMPLATE)),
}
BOS = {"unigram-llama": 1, "chat-gemma": 1}  # the others have none, or one that is not written before text
CASES = [
    (name, prompt)
    for name in TOKENIZERS
    for prompt in (("chat",) if name.startswith("chat") else ("plain", "alpaca", "t5", "inst"))
]


@cache
def tokenizer_of(name: str) -> Any:
    return TOKENIZERS[name][1]()


@cache
def codec(name: str, prompt: str, turns: str = "last") -> Any:
    return codec_for(TOKENIZERS[name][0], tokenizer_of(name), prompt_config(prompt), None, "answer", turns)[0]


CONTROLS = [
    END,
    "</s>",
    "<s>",
    "<bos>",
    "<pad>",
    "<unk>",
    "<|im_end|>",
    "<|im_start|>assistant\n",
    "<end_of_turn>",
    "<start_of_turn>model\n",
]
text = st.lists(
    st.sampled_from([*CONTROLS, "\n", " ", "a", "the cat", "### Response:", "é", "你好", "{", "0"])
    | st.text(max_size=6),
    max_size=8,
).map("".join)
words = text.filter(str.strip)


@pytest.mark.parametrize(("name", "prompt"), CASES)
@settings(max_examples=20)
@given(system=st.none() | words, question=words, material=text, answer=text)
def test_the_answer_and_one_stop_token_are_trained_and_nothing_else(name, prompt, system, question, material, answer):
    tested = codec(name, prompt)
    context = (Turn("user", question, material),)
    context = (Turn("system", system), *context) if system else context
    asked = tested.prompt_ids(tested.template.render(context))
    row = tested.encode(tested.template.render(context), answer)
    trained = [label for label in row.labels if label != IGNORED]
    assert row.input_ids[: row.prompt_length] == asked  # what generation starts from
    assert row.labels[-1] == tested.stop_id
    assert trained.count(tested.stop_id) == 1
    assert row.supervised == len(trained)
    if row.joined:
        assert row.labels == [IGNORED] * len(asked) + row.input_ids[len(asked) :]
        assert trained == row.input_ids[len(asked) :]
    bos = tested.tokenizer.bos_token_id
    if bos is not None and bos != tested.stop_id:
        assert row.input_ids.count(bos) == BOS.get(name, 0)
    if name.startswith(("byte", "bpe", "chat-zephyr", "chat-gemma", "chat-chatml")):  # these give every text back
        assert tested.decode(trained[:-1]) == answer


@pytest.mark.parametrize(("name", "prompt"), CASES)
@settings(max_examples=15)
@given(talk=st.lists(st.tuples(words, words), min_size=1, max_size=3), question=words, answer=words)
def test_of_a_conversation_the_last_turn_is_trained_or_every_assistant_turn(name, prompt, talk, question, answer):
    context = tuple(turn for ask, reply in talk for turn in (Turn("user", ask), Turn("assistant", reply)))
    context = (*context, Turn("user", question))
    example = Example(context, answer, "1", "f:1")
    fitting = Truncation(100_000, 100_000, "error")
    last, every = codec(name, prompt), codec(name, prompt, "all")
    (row,) = [fitting.fit(part, last)[0] for part in last.parts(example)]
    rows = [fitting.fit(part, every)[0] for part in every.parts(example)]
    if not row.joined:  # seq2seq: a row for each answer, with the prompt that asks for it
        assert [every.tokenizer.decode(r.labels[:-1]) for r in rows] == [
            every.tokenizer.decode(every.encode(every.template.render((Turn("user", "Q"),)), a).labels[:-1])
            for a in (*(reply for _, reply in talk), answer)
        ]
        assert [r.labels.count(every.stop_id) for r in rows] == [1] * len(rows)
        return
    if len(rows) > 1:  # a row a turn, because tokens of an earlier turn merge with what follows or precedes it
        assert len(rows) == len(talk) + 1
        assert rows[-1] == row
        assert [r.labels.count(every.stop_id) for r in rows] == [1] * len(rows)
        for part, earlier in zip(every.parts(example), rows, strict=True):
            asked = every.prompt_ids(every.template.render(part.context))
            assert earlier.input_ids[: earlier.prompt_length] == asked
        return
    (all_turns,) = rows
    assert all_turns.input_ids == row.input_ids
    assert row.labels.count(last.stop_id) == 1
    stops = all_turns.labels.count(every.stop_id)
    assert all_turns.untrained_turns == 0
    assert stops == 1 + len(talk)
    if prompt in ("chat", "alpaca") and name.startswith(("byte", "chat-zephyr", "chat-gemma", "chat-chatml")):
        spans = "".join(every.tokenizer.decode(run) for run in runs(all_turns.labels))
        stop = every.tokenizer.convert_ids_to_tokens(every.stop_id)
        assert spans == "".join(f"{reply}{stop}" for reply in (*(reply for _, reply in talk), answer))


def runs(labels):
    """The ids of each unbroken run of labels."""
    found, before = [], IGNORED
    for label in labels:
        if label != IGNORED:
            found = [*found[:-1], [*found[-1], label]] if before != IGNORED else [*found, [label]]
        before = label
    return found


def test_two_turns_by_hand():
    tested = codec("byte-gpt2", "plain", "all")
    context = (Turn("user", "A"), Turn("assistant", "b"), Turn("user", "C"))
    row, *_ = Truncation(100, 100, "error").fit(Example(context, "d", "1", "f:1"), tested)
    assert tested.tokenizer.decode(row.input_ids) == f"A\nb{END}\n\nC\nd{END}"
    assert [label != IGNORED for label in row.labels] == [
        False,
        False,
        True,
        True,
        False,
        False,
        False,
        False,
        True,
        True,
    ]
    assert row.supervised == 4


@settings(max_examples=50)
@given(question=words, good=words, bad=words)
def test_the_rejected_answer_of_a_preference_row_is_never_seen(question, good, bad):
    example = Psychology.to_example({"question": question, "response_j": good, "response_k": bad})
    assert example.answer == good
    assert example == Psychology.to_example({"question": question, "response_j": good, "response_k": ""})
