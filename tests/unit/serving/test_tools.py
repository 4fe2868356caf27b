"""Chat requests with tools, and answers with reasoning and calls, in OpenAI's shape."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from llmft.config.groups import prompt_config
from llmft.data.records import Turn
from llmft.data.tokenization.build import codec_for
from llmft.generation.stream import Stream
from llmft.serving.errors import ApiError
from llmft.serving.request_builder import RequestBuilder
from llmft.serving.response_format import ResponseFormat
from llmft.serving.schema import ChatRequest
from tests.support.chat_templates import call, tokenizer_of

TOOL = {"type": "function", "function": {"name": "get_time", "description": "d", "parameters": {"type": "object", "properties": {}}}}  # fmt: skip
CALL = {"id": "c1", "type": "function", "function": {"name": "get_time", "arguments": '{"city": "Oslo"}'}}
USER = {"role": "user", "content": "Time?"}


class Decoder:
    """Records prompts, and answers with what it is given."""

    settings: Any = {}  # noqa: RUF012
    model = SimpleNamespace(config=SimpleNamespace(max_position_embeddings=4096))

    def __init__(self, template: str) -> None:
        self.codec = codec_for("causal", tokenizer_of(template), prompt_config("chat"), None, "answer")[0]

    def stream(self, prompt: Any, **options: Any) -> Stream:
        return Stream(prompt, codec=self.codec, stop_ids=frozenset(self.codec.stop_ids), limit=options["limit"])


def built(template: str, **body: Any) -> Any:
    limits = SimpleNamespace(max_choices=8, max_prompt_tokens=2048, max_answer_tokens=512)
    safety: Any = SimpleNamespace(refusal=lambda _: None, notice=lambda _: None, banned=(), max_answer_characters=None, without_notice=lambda text: text)  # fmt: skip
    decoders: Any = {"m": Decoder(template)}
    request = ChatRequest.model_validate({"model": "m", **body})
    return RequestBuilder(decoders, None, limits, safety).chat(request), decoders["m"].codec


def test_tools_calls_and_results_are_rendered_by_the_template():
    messages = [USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}, {"role": "tool", "tool_call_id": "c1", "content": "12:00"}]  # fmt: skip
    job, codec = built("qwen3", messages=messages, tools=[TOOL])
    turns = [Turn("user", "Time?"), Turn("assistant", "", tool_calls=(json.dumps(CALL),)), Turn("tool", "12:00")]
    wanted = codec.template.render(turns, (json.dumps(TOOL),))
    assert job.streams[0].prompt == codec.prompt_ids(wanted)
    assert "# Tools" in wanted.text
    assert "12:00" in wanted.text


@pytest.mark.parametrize(
    ("template", "body", "message"),
    [
        ("gemma", {"messages": [USER], "tools": [TOOL]}, "tools: the prompt template of this model has no place"),
        ("qwen3", {"messages": [USER], "tools": [TOOL], "stream": True}, "stream: answers with tools are not streamed"),
        (
            "qwen3",
            {"messages": [USER, {"role": "assistant", "tool_calls": [CALL]}, USER]},
            "messages.2.role: must be tool here",
        ),
        ("qwen3", {"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role: must be user here"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(template, body, message):
    with pytest.raises(ApiError, match=message):
        built(template, **body)


@pytest.mark.parametrize(
    ("answer", "message", "reason"),
    [
        (Turn("assistant", "Noon."), {"content": "Noon."}, "stop"),
        (Turn("assistant", "Noon.", reasoning="Look."), {"content": "Noon.", "reasoning_content": "Look."}, "stop"),
        (
            Turn("assistant", "", tool_calls=(call("get_time", city="Oslo"),)),
            {"content": None, "tool_calls": [CALL]},
            "tool_calls",
        ),
    ],
)
def test_answers_have_the_shape_of_openai(answer, message, reason):
    job, codec = built("qwen3", messages=[USER], tools=[TOOL])
    stream = job.streams[0]
    row = codec.encode(codec.template.render([Turn("user", "Time?")], (json.dumps(TOOL),)), answer)
    for token in row.input_ids[row.prompt_length :]:
        stream.take(token)
    response: Any = SimpleNamespace(streams=[stream], job=job, usage=dict)
    choice = ResponseFormat("m", chat=True).full([stream.text], response)["choices"][0]
    for made in choice["message"].get("tool_calls", ()):
        made["id"] = "c1"
    assert choice["message"] == {"role": "assistant", "refusal": None, **message}
    assert choice["finish_reason"] == reason
