"""Every prompt template, as text, written by hand."""

import pytest

from llmft.config.groups import prompt_config
from llmft.data.records import Example, Turn
from llmft.data.tokenization.build import chosen_prompt, codec_for
from llmft.data.tokenization.template import PromptTemplate
from llmft.utils.errors import UserError
from tests.support.chat_templates import tokenizer_of

USER, SYSTEM, INPUT = Turn("user", "Name a fruit."), Turn("system", "Be brief."), Turn("user", "Sort.", "3 1 2")
TALK = (Turn("user", "Hi"), Turn("assistant", "Hello"), Turn("user", "Bye"))
PREAMBLE = "Below is an instruction that describes a task. Write a response that appropriately completes the request."

TEXTS = {
    ("alpaca", (USER,)): f"{PREAMBLE}\n\n### Instruction:\nName a fruit.\n\n### Response:\n",
    ("alpaca", (INPUT,)): f"{PREAMBLE}\n\n### Instruction:\nSort.\n\n### Input:\n3 1 2\n\n### Response:\n",
    ("alpaca", (SYSTEM, USER)): "Be brief.\n\n### Instruction:\nName a fruit.\n\n### Response:\n",
    (
        "alpaca",
        TALK,
    ): f"{PREAMBLE}\n\n### Instruction:\nHi\n\n### Response:\nHello<|endoftext|>\n\n### Instruction:\nBye\n\n### Response:\n",
    ("plain", (USER,)): "Name a fruit.\n",
    ("plain", (SYSTEM, INPUT)): "Be brief.\n\nSort.\n\n3 1 2\n",
    ("plain", TALK): "Hi\nHello<|endoftext|>\n\nBye\n",
    ("t5", (USER,)): "Instruction: Answer the question. Question: Name a fruit. Answer:",
    ("t5", (SYSTEM, INPUT)): "Instruction: Be brief. Question: Sort.\n\n3 1 2 Answer:",
    (
        "t5",
        TALK,
    ): "Instruction: Answer the question. Question: Hi Answer: Hello<|endoftext|> Question: Bye Answer:",
    ("inst", (USER,)): "[INST] Name a fruit. [/INST]",
    ("inst", (SYSTEM, USER)): "[INST] Be brief.\n\nName a fruit. [/INST]",
    ("inst", TALK): "[INST] Hi [/INST] Hello<|endoftext|>[INST] Bye [/INST]",
}


@pytest.mark.parametrize(("name", "context"), TEXTS)
def test_text_of_every_template(name, context, gpt2_tokenizer):
    codec, chosen = codec_for("causal", gpt2_tokenizer, prompt_config(name), None, "answer")
    assert chosen == name
    assert codec.template.render(context).text == TEXTS[name, context]


def test_a_chat_template_is_the_tokenizers_own(llama_tokenizer):
    codec, _ = codec_for("causal", llama_tokenizer, prompt_config("chat"), None, "answer")
    prompt = codec.template.render((SYSTEM, USER))
    assert prompt.pieces == ("<|system|>\nBe brief.", "</s>", "\n<|user|>\nName a fruit.", "</s>", "\n<|assistant|>\n")
    messages = [turn.message() for turn in (SYSTEM, USER)]
    ids = llama_tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    assert codec.prompt_ids(prompt) == ids


def test_text_for_t5_gets_its_own_frame_once(t5_tokenizer):
    codec, _ = codec_for("seq2seq", t5_tokenizer, prompt_config("plain"), None, "answer")
    assert codec.template.render((USER,)).text == "Name a fruit.\n</s>"
    assert codec.template.render(TALK).text == "Hi\nHello\n\nBye\n</s>"
    assert codec.prompt_ids(codec.template.render((USER,))) == t5_tokenizer("Name a fruit.\n")["input_ids"]


@pytest.mark.parametrize(
    ("of_data", "of_tokenizer", "family", "name"),
    [
        ("alpaca", "chat!", "causal", "alpaca"),
        (None, "chat!", "causal", "chat"),
        (None, None, "causal", "alpaca"),
        (None, None, "seq2seq", "t5"),
    ],
)
def test_auto_takes_the_data_sets_prompt_then_the_chat_template_then_a_plain_one(of_data, of_tokenizer, family, name):
    chosen, source = chosen_prompt("auto", None, of_data, of_tokenizer, family)
    assert chosen == name
    assert source == ("chat!" if name == "chat" else prompt_config(name).template)


def test_a_named_prompt_beats_everything():
    assert chosen_prompt("plain", "text!", "alpaca", "chat!", "causal") == ("plain", "text!")


def test_chat_without_a_chat_template_is_refused(gpt2_tokenizer):
    with pytest.raises(UserError, match=r"prompt=chat: .*no chat template; choose alpaca"):
        codec_for("causal", gpt2_tokenizer, prompt_config("chat"), None, "answer")


REFUSES_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{{ '<' + m.role + '>' + m.content | trim }}{% endfor %}{% if add_generation_prompt %}{{ '<model>' }}{% endif %}"
)
IGNORES_SYSTEM = "{% for m in messages %}{% if m.role != 'system' %}{{ m.content }}{% endif %}{% endfor %}"


@pytest.mark.parametrize(
    ("source", "text"),
    [(REFUSES_SYSTEM, "<user>Be brief.\n\nName a fruit.<model>"), (IGNORES_SYSTEM, "Be brief.\n\nName a fruit.")],
)
def test_a_system_line_goes_into_the_user_turn_where_there_is_no_system_role(source, text):
    assert PromptTemplate(source).render((SYSTEM, USER)).text == text


def test_control_tokens_that_users_type_stay_text():
    source = "{% for m in messages %}{{ '<a>' + m.content | trim + '</a>' }}{% endfor %}"
    prompt = PromptTemplate(source, ("<a>", "</a>", "</a")).render((Turn("user", " x</a><a>y "),))
    assert prompt.pieces == ("", "<a>", "x</a><a>y", "</a>", "")
    assert prompt.text == "<a>x</a><a>y</a>"


def test_private_characters_in_the_text_are_no_trouble():
    text = "".join(map(chr, range(0xF0000, 0xF0005))) + "<a>"
    assert PromptTemplate("{{ messages[0].content }}<a>", ("<a>",)).render((Turn("user", text),)).pieces == (
        text,
        "<a>",
        "",
    )


def test_a_template_that_fails_is_a_users_error():
    with pytest.raises(UserError, match=r"prompt template: no good \(turns: user\)"):
        PromptTemplate("{{ raise_exception('no good') }}").render((USER,))


@pytest.mark.parametrize(
    ("name", "frame"),
    [("inst", (" ", "<|endoftext|>")), ("alpaca", ("", "<|endoftext|>")), ("plain", ("", "<|endoftext|>"))],
)
def test_frame_of_an_answer(name, frame, gpt2_tokenizer):
    codec, _ = codec_for("causal", gpt2_tokenizer, prompt_config(name), None, "answer")
    assert codec.template.frame == frame


def test_the_tags_of_reasoning_are_no_typed_text_and_others_are():
    """The row counts name the control tokens that stay text; the tags at the head of an answer are parsed."""
    codec, _ = codec_for("causal", tokenizer_of("qwen3"), prompt_config("chat"), None, "answer")
    question = Turn("user", "What does <|im_end|> do?")
    example = Example((question,), "<think>\nIt ends a turn.\n</think>\n\nIt is </think>-like.")
    texts = [text for text in codec.template.typed_texts(example) if text]
    assert texts == ["What does <|im_end|> do?", "It is </think>-like.", "It ends a turn."]
