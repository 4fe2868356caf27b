"""Pieces of answers -> OpenAI's response bodies, as one JSON object or as server-sent events."""

import json
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

from llmft.data.tokenization.replies import Call
from llmft.generation.stream import Stream
from llmft.serving.errors import ApiError
from llmft.serving.request_builder import GenerationJob
from llmft.serving.response_stream import Piece, ResponseStream, finish_reason


class ResponseFormat:
    """The format of one response: of chat completions, or of completions.

    Args:
        model: The model's name in the request.
        chat: Whether it is a chat completion.
    """

    def __init__(self, model: str, *, chat: bool) -> None:
        self.chat = chat
        kind = "chat.completion" if chat else "text_completion"
        self.head = {"id": f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}", "object": kind}
        self.tail = {"created": int(time.time()), "model": model}

    def full(self, texts: list[str], response: ResponseStream) -> dict[str, Any]:
        """The response body without streaming."""
        choices = [
            self._choice(number, text, stream, response.job)
            for number, (text, stream) in enumerate(zip(texts, response.streams, strict=True))
        ]
        return {**self.head, **self.tail, "choices": choices, "usage": response.usage()}

    async def events(self, response: ResponseStream, *, usage: bool) -> AsyncIterator[str]:
        """The response as server-sent events; an error during generation is an event too."""
        try:
            if self.chat:
                for number in range(len(response.streams)):
                    yield self._event([self._delta(number, {"role": "assistant", "content": ""}, None)], usage=usage)
            async for piece in response:
                yield self._event([self._chunk(piece, response)], usage=usage)
            if usage:
                yield self._event([], usage=usage, counts=response.usage())
            yield "data: [DONE]\n\n"
        except ApiError as error:
            yield f"data: {json.dumps(error.body())}\n\n"

    def _chunk(self, piece: Piece, response: ResponseStream) -> dict[str, Any]:
        reason = finish_reason(response.streams[piece.choice]) if piece.reason else None
        if self.chat:
            return self._delta(piece.choice, {} if piece.reason else {"content": piece.text}, reason)
        return {"index": piece.choice, "text": piece.text, "logprobs": None, "finish_reason": reason}

    def _event(self, choices: list[Any], *, usage: bool, counts: dict[str, int] | None = None) -> str:
        kind = {"object": "chat.completion.chunk"} if self.chat else {}
        body = {**self.head, **kind, **self.tail, "choices": choices, **({"usage": counts} if usage else {})}
        return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"

    def _choice(self, number: int, text: str, stream: Stream, job: GenerationJob) -> dict[str, Any]:
        reason = finish_reason(stream)
        if not self.chat:
            return {"index": number, "text": text, "logprobs": None, "finish_reason": reason}
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if job.reader and stream.text == stream.codec.decode(stream.ids):  # not ended by its text
            reply = job.reader.read(stream.ids)
            if reply.reasoning or reply.calls:
                notice = text.removesuffix(stream.text)
                message["content"] = notice + reply.content or None
            if reply.reasoning:
                message["reasoning_content"] = reply.reasoning
            if reply.calls:
                message["tool_calls"] = [_call(call) for call in reply.calls]
                reason = "tool_calls" if reason == "stop" else reason
        return {"index": number, "message": message, "logprobs": None, "finish_reason": reason}

    @staticmethod
    def _delta(number: int, delta: dict[str, str], reason: str | None) -> dict[str, Any]:
        return {"index": number, "delta": delta, "logprobs": None, "finish_reason": reason}


def _call(call: Call) -> dict[str, Any]:
    return {"id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": call._asdict()}


async def texts(response: ResponseStream) -> list[str]:
    """The full text of each choice."""
    found = [""] * len(response.streams)
    async for piece in response:
        found[piece.choice] += piece.text
    return found
