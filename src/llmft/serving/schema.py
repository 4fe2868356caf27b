"""The request bodies: OpenAI's chat completions and completions."""

import json
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator
from pydantic_core import PydanticCustomError

from llmft.data.records import HALF

# Fields of OpenAI's API that change no answer: accepted and ignored.
IGNORED = {
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "parallel_tool_calls",
}
# Fields that would change the answer: accepted only with their neutral value.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (None, 0),
    "presence_penalty": (None, 0),
    "logit_bias": (None, {}),
    "logprobs": (None, False, 0),
    "top_logprobs": (None, 0),
    "best_of": (None, 1),
    "echo": (None, False),
    "suffix": (None, ""),
    "tools": (None, []),
    "tool_choice": (None, "auto"),
    "functions": (None, []),
    "function_call": (None, "none"),
    "response_format": (None, {"type": "text"}),
    "modalities": (None, ["text"]),
    "reasoning_effort": (None, "none"),
}
MESSAGE_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "refusal": (None,),
    "annotations": (None, []),
    "audio": (None,),
    "tool_calls": (None, []),
    "function_call": (None,),
}


def _no_surrogates(text: str) -> str:
    if HALF.search(text):
        raise PydanticCustomError("surrogate", "contains a lone surrogate, which is not a character")
    return text


Text = Annotated[str, AfterValidator(_no_surrogates)]


class Strict(BaseModel):
    """No type coercion, and unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class ContentPart(Strict):
    """A text part of a message."""

    type: Literal["text"]
    text: Text


class CalledFunction(Strict):
    """Name and arguments of a tool call; the arguments are JSON text."""

    name: Text
    arguments: Text

    @field_validator("arguments")
    @classmethod
    def _is_object(cls, text: str) -> str:
        try:
            parsed = json.loads(text)
        except ValueError:
            parsed = None
        if not isinstance(parsed, dict):
            raise PydanticCustomError("arguments", "must be a JSON object as text")
        return text


class ToolCall(Strict):
    """A tool call of an assistant message."""

    id: Text
    type: Literal["function"] = "function"
    function: CalledFunction


class Function(Strict):
    """A tool: its name and the JSON Schema of its arguments."""

    name: Annotated[Text, StringConstraints(min_length=1, max_length=200)]
    description: Text = ""
    parameters: dict[str, Any] = Field(default_factory=lambda: {"type": "object", "properties": {}})
    strict: bool | None = None


class Tool(Strict):
    """A tool that the model may call."""

    type: Literal["function"]
    function: Function

    def text(self) -> str:
        """The tool as JSON text, as ``Example.tools`` has it."""
        return json.dumps({"type": "function", "function": self.function.model_dump(exclude={"strict"})})


class Message(Strict):
    """A message of the conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | list[ContentPart] | None = None
    name: Text | None = None
    reasoning_content: Text | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: Text | None = None

    @model_validator(mode="before")
    @classmethod
    def _drop_neutral(cls, data: Any) -> Any:
        return _without(data, (), MESSAGE_NEUTRAL)

    @model_validator(mode="after")
    def _check_fields(self) -> Self:
        if self.content is None and not self.tool_calls:
            raise PydanticCustomError("content", "must have content")
        if self.role != "assistant" and (self.tool_calls or self.reasoning_content):
            raise PydanticCustomError("role", "only an assistant message has tool_calls or reasoning_content")
        if self.tool_call_id is not None and self.role != "tool":
            raise PydanticCustomError("role", "only a tool message has tool_call_id")
        return self

    def text(self) -> str:
        """The content as one string."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content or ())


class StreamOptions(Strict):
    """Options of a streamed response."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


Stop = Annotated[Text, StringConstraints(min_length=1, max_length=200)]


class Request(Strict):
    """Fields of both kinds of request."""

    model: Text
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    n: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @model_validator(mode="before")
    @classmethod
    def _drop_neutral(cls, data: Any) -> Any:
        return _without(data, IGNORED, NEUTRAL)

    def stops(self) -> list[str]:
        """The stop strings."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or ())

    def with_usage(self) -> bool:
        """Whether a stream ends with the token counts."""
        return bool(self.stream_options and self.stream_options.include_usage)


class ChatRequest(Request):
    """``POST /v1/chat/completions``."""

    messages: Annotated[list[Message], Field(min_length=1)]
    tools: Annotated[list[Tool], Field(max_length=128)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None


Ids = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]


class CompletionRequest(Request):
    """``POST /v1/completions``: the raw prompt, without a template."""

    prompt: Text | Ids | Annotated[list[Text], Field(min_length=1)] | Annotated[list[Ids], Field(min_length=1)]


def _without(data: Any, ignored: Collection[str], neutral: Mapping[str, tuple[Any, ...]]) -> Any:
    """The body without ignored and neutral fields; other unknown fields stay, and validation rejects them by name."""
    if not isinstance(data, dict):
        return data
    return {
        name: value
        for name, value in data.items()
        if name not in ignored and not any(_same(value, off) for off in neutral.get(name, ()))
    }


def _same(value: Any, off: Any) -> bool:
    """Whether a value is the neutral one: 0.0 equals 0, but False does not."""
    return value == off and isinstance(value, bool) == isinstance(off, bool)
