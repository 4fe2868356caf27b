"""Streams of the engine's thread -> pieces of text in the event loop, while the client stays connected."""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

from fastapi import Request

from llmft.generation.stream import Stream
from llmft.serving.engine import Engine, EngineClosed, QueueFull
from llmft.serving.errors import ApiError
from llmft.serving.prometheus import Metrics
from llmft.serving.request_builder import GenerationJob

T = TypeVar("T")


class Piece(NamedTuple):
    """Text of a choice, or the reason why the choice ended."""

    choice: int
    text: str
    reason: str | None


class ClientDisconnected(Exception):
    """The client has closed the connection."""


class ResponseStream:
    """The answers to one request; leaving the context cancels those that have not ended.

    Args:
        engine: Decodes the streams.
        job: The request.
        seconds: Time limit, including the time in the queue.
        metrics: Records the request.
    """

    def __init__(self, engine: Engine, job: GenerationJob, seconds: float, metrics: Metrics) -> None:
        self.engine, self.job, self.metrics = engine, job, metrics
        self.streams = job.streams
        self.start = time.perf_counter()
        self.loop = asyncio.get_running_loop()
        self.deadline = self.loop.time() + seconds
        self.seconds = seconds
        self.pieces: asyncio.Queue[Piece] = asyncio.Queue()
        for number, stream in enumerate(self.streams):
            stream.emit = lambda text, number=number: self._put(Piece(number, text, None))
            stream.closed = lambda number=number, stream=stream: self._put(Piece(number, "", stream.reason))

    def __enter__(self) -> Self:
        """Queue the streams.

        Raises:
            ApiError: The queue is full, or the server is shutting down.
        """
        try:
            self.engine.submit(self.job.model, self.streams)
        except QueueFull:
            raise ApiError(
                429, "too many requests are waiting; try again", code="queue_full", headers={"Retry-After": "1"}
            ) from None
        except EngineClosed:
            raise ApiError(503, "the server is shutting down", code="shutting_down") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cancel the streams that have not ended, and record the request."""
        unfinished = [stream for stream in self.streams if stream.reason is None]
        self.engine.cancel(unfinished)
        self.metrics.record(self.job, self.start, cancelled=len(unfinished))

    async def __aiter__(self) -> AsyncIterator[Piece]:
        """Pieces until all choices have ended.

        Raises:
            ApiError: The time limit has passed, or generation failed.
        """
        if self.job.notice:
            for number in range(len(self.streams)):
                yield Piece(number, f"{self.job.notice}\n\n", None)
        open_choices = len(self.streams)
        while open_choices:
            try:
                async with asyncio.timeout_at(self.deadline):
                    piece = await self.pieces.get()
            except TimeoutError:
                message = f"the time limit of {self.seconds:g} s has passed"
                raise ApiError(504, message, code="time_limit") from None
            if piece.reason == "failed":
                raise ApiError(500, "generation failed; see the server's log")
            open_choices -= piece.reason is not None
            yield piece

    def usage(self) -> dict[str, int]:
        """Prompt tokens, and tokens of all answers without stop tokens."""
        answers = sum(len(stream.ids) for stream in self.streams)
        prompts = self.job.prompt_tokens
        return {"prompt_tokens": prompts, "completion_tokens": answers, "total_tokens": prompts + answers}

    def _put(self, piece: Piece) -> None:
        self.loop.call_soon_threadsafe(self.pieces.put_nowait, piece)


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``, unless the client disconnects first.

    Raises:
        ClientDisconnected: It did; the work is cancelled.
    """
    task, gone = asyncio.create_task(work), asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnected
        return task.result()
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def finish_reason(stream: Stream) -> str:
    """OpenAI's ``finish_reason`` of an answer."""
    return {"stop": "stop", "filtered": "content_filter"}.get(stream.reason or "", "length")
