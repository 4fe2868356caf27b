"""What a GGUF file says about BOS, EOS, stop token and template is what the prompts were trained with."""

import pytest
from tokenizers import processors

from llmft.data.records import Turn
from llmft.data.tokenization.build import codec_for
from llmft.data.tokenization.traits import render
from llmft.export.forms import gguf
from llmft.models.backbone.tiny import GEMMA_TEMPLATE, LLAMA_TEMPLATE, byte_tokenizer

ROLES = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
BOS, EOS, STOP, TEMPLATE = (
    "tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token", "tokenizer.ggml.eot_token_id", "tokenizer.chat_template",
)  # fmt: skip
NO_SYSTEM = GEMMA_TEMPLATE.replace(
    "{{ bos_token }}",
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}",
)


@pytest.fixture
def codec(load_config):
    def build(template, *, adds_bos=True):
        tokenizer = byte_tokenizer(ROLES, more=("<start_of_turn>", "<end_of_turn>"))
        if adds_bos:
            tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
                single="<bos> $A", special_tokens=[("<bos>", 2)]
            )
        tokenizer.chat_template = template
        return codec_for("causal", tokenizer, load_config("prompt=chat").prompt, None, "answer")[0]

    return build


def test_llama_cpp_adds_the_bos_only_to_prompts_that_were_trained_with_it(codec):
    assert gguf._metadata(codec(LLAMA_TEMPLATE)) == {BOS: False, EOS: False}
    found = gguf._metadata(codec(GEMMA_TEMPLATE))
    assert found == {BOS: True, EOS: False, STOP: 5}  # <end_of_turn>, the sixth special token
    assert gguf._metadata(codec(GEMMA_TEMPLATE, adds_bos=False))[BOS] is False  # it is in the template's text
    for template, adds, start in (
        (GEMMA_TEMPLATE, True, "<start_of_turn>"),
        (GEMMA_TEMPLATE, False, "<bos><start_of_turn>"),
        (LLAMA_TEMPLATE, True, "<|user|>"),
    ):
        shape, _ = gguf._shape(codec(template, adds_bos=adds))
        assert shape is not None
        assert shape.no_system.startswith(start)


def test_a_system_prompt_stands_where_it_was_trained(codec):
    trained = codec(NO_SYSTEM)
    source = str(gguf._metadata(trained)[TEMPLATE])
    for turns in (
        [Turn("system", "Be brief."), Turn("user", "Hi")],
        [Turn("user", "Hi")],
        [Turn("system", "S"), Turn("user", "A"), Turn("assistant", "B"), Turn("user", "C")],
    ):
        messages = [{"role": turn.role, "content": turn.content} for turn in turns]
        text = render(source, messages, {"bos_token": "<bos>", "eos_token": "<eos>"}, generate=True)
        assert text == trained.template.render(turns).text
    assert (
        "Be brief.\n\nHi<end_of_turn>"
        in trained.template.render([Turn("system", "Be brief."), Turn("user", "Hi")]).text
    )
