"""A request -> the streams to decode: model, prompt, limits and sampling."""

import copy
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llmft.data.records import Turn
from llmft.data.tokenization.causal import CausalCodec
from llmft.data.tokenization.replies import ReplyReader
from llmft.generation.decoder import Decoder
from llmft.generation.sampling import Sampling, sampling_settings
from llmft.generation.stream import Stream
from llmft.models.backbone.load import max_positions
from llmft.serving.errors import ApiError
from llmft.serving.safety import Safety
from llmft.serving.schema import ChatRequest, CompletionRequest, Message, Request
from llmft.utils.errors import UserError

# The roles that may follow a turn, except the results that follow calls.
FOLLOWING = {"user": ("assistant",), "assistant": ("user",), "tool": ("tool", "assistant")}


@dataclass
class GenerationJob:
    """A request that is ready for the engine: one stream per choice, and the notice that precedes each answer.

    ``reader`` tells reasoning and tool calls of a chat answer from its text; None for raw completions and seq2seq models.
    """

    model: str
    streams: list[Stream]
    prompt_tokens: int
    notice: str | None
    reader: ReplyReader | None = None


class RequestBuilder:
    """Builds jobs under the models, limits and safety filter of a server.

    Args:
        decoders: Decoders by the name that clients use; the run's own first.
        system: System prompt of conversations that have none.
        limits: The ``serve`` keys.
        safety: The safety filter.
    """

    def __init__(self, decoders: Mapping[str, Decoder], system: str | None, limits: Any, safety: Safety) -> None:
        self.decoders, self.system, self.limits, self.safety = decoders, system, limits, safety
        # tokenizers are not thread-safe: this thread has copies of its own
        self.codecs = copy.deepcopy({name: decoder.codec for name, decoder in decoders.items()})

    def chat(self, request: ChatRequest) -> GenerationJob:
        """A conversation, rendered with the trained prompt template.

        Raises:
            ApiError: The request is invalid.
        """
        decoder = self._decoder(request.model)
        tools = self._tools(request)
        context = self._context(request.messages)
        limit = request.max_completion_tokens or request.max_tokens
        if request.max_tokens and limit != request.max_tokens:
            raise ApiError(400, "max_tokens and max_completion_tokens differ; pass one of them", param="max_tokens")
        try:
            codec = self.codecs[request.model]
            ids = codec.prompt_ids(codec.template.render(context, tools))
        except UserError as error:  # templates of Llama 2 or Gemma reject some turns
            raise ApiError(400, f"messages: {error}", param="messages") from None
        reader = ReplyReader(codec, bool(tools)) if isinstance(codec, CausalCodec) else None
        question = next(turn.content for turn in reversed(context) if turn.role == "user")
        return replace(self._job(request, decoder, [ids], limit, question), reader=reader)

    def _tools(self, request: ChatRequest) -> tuple[str, ...]:
        """The tools as JSON text.

        Raises:
            ApiError: The prompt template writes no tools, or the answer is to be streamed.
        """
        tools = tuple(tool.text() for tool in request.tools or ())
        if tools and not self.codecs[request.model].template.for_tools(tools).traits.tools:
            raise ApiError(400, "tools: the prompt template of this model has no place for them", param="tools")
        if tools and request.stream:
            raise ApiError(400, "stream: answers with tools are not streamed; pass stream=false", param="stream")
        return tools

    def completion(self, request: CompletionRequest) -> GenerationJob:
        """Raw text or token ids, without a template.

        Raises:
            ApiError: The request is invalid.
        """
        decoder, given = self._decoder(request.model), request.prompt
        prompts: Sequence[Any] = given if isinstance(given, list) and not isinstance(given[0], int) else [given]
        tokenizer = self.codecs[request.model].tokenizer
        ids = [self._ids(prompt, tokenizer) for prompt in prompts]
        text = "\n".join(prompt if isinstance(prompt, str) else tokenizer.decode(prompt) for prompt in prompts)
        return self._job(request, decoder, ids, request.max_tokens, text)

    def _decoder(self, model: str) -> Decoder:
        if model not in self.decoders:
            known = ", ".join(self.decoders)
            raise ApiError(
                404, f"model: there is no such model; there is {known}", param="model", code="model_not_found"
            )
        return self.decoders[model]

    def _context(self, messages: Sequence[Message]) -> tuple[Turn, ...]:
        """The turns: an optional system turn, then user and assistant alternate; the last one is the user's or a tool's."""
        turns = [self._turn(message) for message in messages]
        first = turns[0].role == "system"
        for number, turn in enumerate(turns[first:], start=first):
            before = turns[number - 1] if number > first else Turn("assistant", "")
            wanted = ("tool",) if before.tool_calls else FOLLOWING[before.role]
            if turn.role not in wanted:
                place = f"messages.{number}.role"
                raise ApiError(
                    400, f"{place}: must be {' or '.join(wanted)} here; user and assistant alternate", param=place
                )
        if turns[-1].role not in ("user", "tool") or not turns[-1].content.strip():
            place = f"messages.{len(turns) - 1}"
            raise ApiError(400, f"{place}: the last message must be the user's, and not blank", param=place)
        return tuple(turns) if first or not self.system else (Turn("system", self.system), *turns)

    def _turn(self, message: Message) -> Turn:
        text = self.safety.without_notice(message.text()) if message.role == "assistant" else message.text()
        return Turn(
            "system" if message.role == "developer" else message.role,
            text,
            reasoning=message.reasoning_content,
            tool_calls=tuple(call.model_dump_json() for call in message.tool_calls or ()),
            name=(message.name or "") if message.role == "tool" else "",
            tool_call_id=message.tool_call_id or "",
        )

    def _ids(self, prompt: Any, tokenizer: Any) -> list[int]:
        if isinstance(prompt, list):
            if max(prompt) >= len(tokenizer):
                raise ApiError(400, f"prompt: ids must be below {len(tokenizer)}", param="prompt")
            return prompt
        own = bool(tokenizer.bos_token) and prompt.startswith(tokenizer.bos_token)
        ids = tokenizer(prompt, add_special_tokens=not own)["input_ids"]
        if not ids:
            raise ApiError(400, "prompt: must not be empty", param="prompt")
        return ids

    def _job(
        self, request: Request, decoder: Decoder, prompts: list[list[int]], limit: int | None, question: str
    ) -> GenerationJob:
        choices = request.n or 1
        if choices * len(prompts) > self.limits.max_choices:
            raise ApiError(400, f"n: at most {self.limits.max_choices} answers to a request", param="n")
        if refusal := self.safety.refusal(question):
            raise ApiError(400, refusal, param="messages", code="content_filter")
        seed = secrets.randbits(62) if request.seed is None else request.seed % 2**63
        streams = []
        for ids in prompts:
            max_tokens = self._limit(decoder, len(ids), limit)
            for choice in range(choices):
                settings = sampling(decoder.settings, request)
                streams.append(
                    decoder.stream(
                        ids,
                        seed=seed,
                        limit=max_tokens,
                        stops=request.stops(),
                        banned=self.safety.banned,
                        max_characters=self.safety.max_answer_characters,
                        sampling=Sampling(settings, seed, sample=choice, prompt=ids) if settings else None,
                    )
                )
        return GenerationJob(request.model, streams, sum(map(len, prompts)), self.safety.notice(question))

    def _limit(self, decoder: Decoder, prompt: int, limit: int | None) -> int:
        """Max tokens of an answer: as requested, or the run's own setting as far as it fits.

        Raises:
            ApiError: The prompt or the answer is too long.
        """
        if prompt > self.limits.max_prompt_tokens:
            raise _too_long(f"the prompt has {prompt} tokens; {self.limits.max_prompt_tokens} are allowed")
        if limit is not None and limit > self.limits.max_answer_tokens:
            raise ApiError(400, f"max_tokens: at most {self.limits.max_answer_tokens}", param="max_tokens")
        positions = max_positions(decoder.model.config)
        room = self.limits.max_answer_tokens if positions is None else positions - prompt
        if room < (limit or 1):
            raise _too_long(f"the prompt has {prompt} tokens and the answer {limit or 1}; the model has {positions}")
        return limit or min(decoder.settings.get("max_new_tokens", room), self.limits.max_answer_tokens, room)


def sampling(settings: Mapping[str, Any], request: Request) -> dict[str, Any] | None:
    """Sampling settings: the run's own, overridden by the request; None is greedy."""
    if request.temperature == 0:
        return None
    own = sampling_settings(settings)
    requested = {"temperature": request.temperature, "top_p": request.top_p}
    changes = {name: value for name, value in requested.items() if value is not None}
    return {**(own or {}), **changes} if changes else own


def _too_long(message: str) -> ApiError:
    return ApiError(400, message, param="messages", code="context_length_exceeded")
