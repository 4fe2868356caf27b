"""Prompt templates of known shapes as Go templates for Ollama; what constant texts between turns cannot express is refused."""

import pytest

from llmft.config.groups import prompt_config
from llmft.data.tokenization.traits import Traits
from llmft.export.llama_cpp.turn_shape import ShapeError, TurnShape, go_escaped, go_template, turn_shape
from llmft.models.backbone.tiny import GEMMA_TEMPLATE, LLAMA_TEMPLATE

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA2 = (
    "{% if messages[0].role == 'system' %}{% set lead = '<<SYS>>\n' + messages[0].content + '\n<</SYS>>\n\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set lead = '' %}{% endif %}"
    "{% for m in messages %}{% if m.role == 'user' %}"
    "{{ bos_token + '[INST] ' + (lead if loop.first else '') + m.content.strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim"
    " + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
GEMMA_OF_GOOGLE = GEMMA_TEMPLATE.replace(
    "{{ bos_token }}",
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}",
)


def traits(source: str) -> Traits:
    return Traits(source, {"bos_token": "<s>", "eos_token": "</s>"})


def own(name: str) -> str:
    return "{%- set turn_end = eos_token -%}" + str(prompt_config(name).template)


# Two questions with an answer between them and a system prompt, and one question without, written by hand.
EXPECTED = {
    "chatml": (
        CHATML,
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nA<|im_end|>\n<|im_start|>assistant\nB<|im_end|>\n"
        "<|im_start|>user\nC<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>user\nA<|im_end|>\n<|im_start|>assistant\n",
    ),
    "llama2": (
        LLAMA2,
        "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\nA [/INST] B </s><s>[INST] C [/INST]",
        "<s>[INST] A [/INST]",
    ),
    "llama3": (
        LLAMA3,
        "<s><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nA<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nB<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nC<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "<s><|start_header_id|>user<|end_header_id|>\n\nA<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    "gemma": (
        GEMMA_OF_GOOGLE,
        "<s><start_of_turn>user\nS\n\nA<end_of_turn>\n<start_of_turn>model\nB<end_of_turn>\n<start_of_turn>user\nC<end_of_turn>\n"
        "<start_of_turn>model\n",
        "<s><start_of_turn>user\nA<end_of_turn>\n<start_of_turn>model\n",
    ),
    "zephyr": (
        LLAMA_TEMPLATE,
        "<|system|>\nS</s>\n<|user|>\nA</s>\n<|assistant|>\nB</s>\n<|user|>\nC</s>\n<|assistant|>\n",
        "<|user|>\nA</s>\n<|assistant|>\n",
    ),
    "alpaca": (
        own("alpaca"),
        "S\n\n### Instruction:\nA\n\n### Response:\nB</s>\n\n### Instruction:\nC\n\n### Response:\n",
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nA\n\n### Response:\n",
    ),
    "plain": (own("plain"), "S\n\nA\nB</s>\n\nC\n", "A\n"),
    "inst": (own("inst"), "[INST] S\n\nA [/INST] B</s>[INST] C [/INST]", "[INST] A [/INST]"),
}  # fmt: skip


@pytest.mark.parametrize("name", EXPECTED)
def test_the_shape_of_a_template_writes_its_prompts(name):
    source, conversation, question = EXPECTED[name]
    shape = turn_shape(traits(source))
    assert shape.render("S", ["A", "C"], ["B"]) == conversation
    assert shape.render(None, ["A"], []) == question
    assert shape.strips == (name in ("llama2", "llama3"))


def test_a_go_template():
    text = go_template(turn_shape(traits(CHATML)))
    assert text == (
        r'{{- if .System }}{{ "<|im_start|>system\n" }}{{ .System }}{{ "<|im_end|>\n<|im_start|>user\n" }}'
        r'{{ else }}{{ "<|im_start|>user\n" }}{{ end }}' + "\n"
        "{{- range $i, $_ := .Messages }}\n"
        "{{- $last := eq (len (slice $.Messages $i)) 1 }}\n"
        '{{- if eq .Role "user" }}{{ .Content }}'
        r'{{ if $last }}{{ "<|im_end|>\n<|im_start|>assistant\n" }}{{ else }}{{ "<|im_end|>\n<|im_start|>assistant\n" }}{{ end }}'
        "\n"
        '{{- else if eq .Role "assistant" }}{{ .Content }}'
        r'{{ if not $last }}{{ "<|im_end|>\n<|im_start|>user\n" }}{{ end }}' + "\n"
        "{{- end }}\n"
        "{{- end }}"
    )


def test_texts_of_go():
    assert go_escaped('a "b"\\\t\x00é') == r"a \x22b\x22\\\t\x00é"
    assert go_template(TurnShape("", "", "", "", "", "")).startswith(
        "{{- if .System }}{{ .System }}{{ else }}{{ end }}"
    )


def test_the_bos_is_left_to_the_runtime():
    shape = turn_shape(traits(LLAMA3)).without_bos("<s>")
    assert shape.render(None, ["A"], []).startswith("<|start_header_id|>user")
    assert shape.render("S", ["A"], []).startswith("<|start_header_id|>system")
    with pytest.raises(ShapeError, match="not every conversation starts with <s>"):
        turn_shape(traits(CHATML)).without_bos("<s>")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{{ strftime_now('%Y') }}" + CHATML, "writes the date"),
        (CHATML.replace("+ m.content", "+ m.content + loop.index | string"), "later turns otherwise"),
        (CHATML.replace("+ m.content", "+ (m.content | upper)"), "every turn once and in order"),
        (CHATML.replace("+ m.content", "+ (m.content | replace('?', '!'))"), "more than constant texts"),
        ("{{ raise_exception('no') if messages | length > 1 else '' }}" + CHATML, "it fails on a conversation"),
    ],
)
def test_what_ollama_cannot_express_is_refused(source, reason):
    with pytest.raises(ShapeError, match=reason):
        turn_shape(traits(source))
