"""What was generated is read as it was written: reasoning, text and calls."""

import json

import pytest

from llmft.config.groups import prompt_config
from llmft.data.records import Turn
from llmft.data.tokenization.build import codec_for
from llmft.data.tokenization.causal import CausalCodec
from llmft.data.tokenization.replies import Call, Reply, ReplyReader
from tests.support.chat_templates import PUBLISHED, call, tokenizer_of

TOOL = json.dumps({"type": "function", "function": {"name": "get_time", "description": "d", "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "c"}}}}})  # fmt: skip
TIME = Call("get_time", '{"city": "Oslo"}')
OSLO = (call("get_time", city="Oslo"),)


def read(name, answer, *, tools=False):
    tokenizer = tokenizer_of(name)
    stops = tokenizer.convert_tokens_to_ids(PUBLISHED[name].stops.split())
    codec = codec_for("causal", tokenizer, prompt_config("chat"), None, "answer", stops=stops)[0]
    assert isinstance(codec, CausalCodec)
    row = codec.encode(codec.template.render([Turn("user", "Time?")], (TOOL,) if tools else ()), answer)
    return ReplyReader(codec, tools).read(row.input_ids[row.prompt_length : -1])


@pytest.mark.parametrize(
    "name", ["glm4moe", "gptoss", "muse_glimmer", "qwen3", "qwen3_5_think", "nemotron_3_nano", "gemma4_v5"]
)
def test_reasoning_is_told_from_the_answer(name):
    assert read(name, Turn("assistant", "Noon.", reasoning="Look up.")) == Reply("Noon.", "Look up.")
    assert read(name, Turn("assistant", "Noon.")) == Reply("Noon.")


@pytest.mark.parametrize("name", ["deepseekv3", "gptoss", "llama3_1", "qwen2_5", "qwen3", "qwen3_instruct_2507"])
def test_calls_are_read_with_their_arguments(name):
    assert read(name, Turn("assistant", "", tool_calls=OSLO), tools=True) == Reply("", None, (TIME,))
    assert read(name, Turn("assistant", "Noon."), tools=True) == Reply("Noon.")


def test_calls_beside_text_and_reasoning():
    two = (*OSLO, call("get_time", city="Rome", zones=[{"a": 1}]))
    answer = Turn("assistant", "I look.", reasoning="Two places.", tool_calls=two)
    calls = (TIME, Call("get_time", '{"city": "Rome", "zones": [{"a": 1}]}'))
    assert read("qwen3", answer, tools=True) == Reply("I look.", "Two places.", calls)


def test_without_tools_nothing_is_a_call():
    assert read("qwen2_5", Turn("assistant", '<tool_call>\n{"name": "x", "arguments": {}}')).calls == ()
