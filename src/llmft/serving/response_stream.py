"""Streams in the engine's thread -> their pieces in the event loop, for as long as the client is there."""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

from fastapi import Request

from llmft.generation.stream import Stream
from llmft.serving.engine import Closed, Engine, Full
from llmft.serving.errors import ApiError
from llmft.serving.prometheus import Metrics
from llmft.serving.request_builder import GenerationJob

T = TypeVar("T")


class Piece(NamedTuple):
    """Text of a choice, or the reason why it ended."""

    choice: int
    text: str
    reason: str | None


class ClientLeft(Exception):
    """Nobody is there to be answered."""


class ResponseStream:
    """The answer to one request; leaving it cancels what has not ended.

    Args:
        engine: Answers the streams.
        prepared: What is asked.
        seconds: The time for all of it, waiting included.
        metrics: Counts it.
    """

    def __init__(self, engine: Engine, prepared: GenerationJob, seconds: float, metrics: Metrics) -> None:
        self.engine, self.prepared, self.metrics = engine, prepared, metrics
        self.streams = prepared.streams
        self.begun = time.perf_counter()
        self.loop = asyncio.get_running_loop()
        self.until = self.loop.time() + seconds
        self.seconds = seconds
        self.pieces: asyncio.Queue[Piece] = asyncio.Queue()
        for number, stream in enumerate(self.streams):
            stream.emit = lambda text, number=number: self._put(Piece(number, text, None))
            stream.closed = lambda number=number, stream=stream: self._put(Piece(number, "", stream.reason))

    def __enter__(self) -> Self:
        """Put the streams in the queue.

        Raises:
            ApiError: There is no place, or the server is going down.
        """
        try:
            self.engine.submit(self.prepared.model, self.streams)
        except Full:
            raise ApiError(
                429, "too many requests are waiting; try again", code="queue_full", headers={"Retry-After": "1"}
            ) from None
        except Closed:
            raise ApiError(503, "the server is going down", code="shutting_down") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Free the places of what has not ended, and count."""
        left = [stream for stream in self.streams if stream.reason is None]
        self.engine.cancel(left)
        self.metrics.answered(self.prepared, self.begun, cancelled=len(left))

    async def __aiter__(self) -> AsyncIterator[Piece]:
        """Pieces until all choices have ended.

        Raises:
            ApiError: The time is up, or the model failed.
        """
        if self.prepared.notice:
            for number in range(len(self.streams)):
                yield Piece(number, f"{self.prepared.notice}\n\n", None)
        open_choices = len(self.streams)
        while open_choices:
            try:
                async with asyncio.timeout_at(self.until):
                    piece = await self.pieces.get()
            except TimeoutError:
                message = f"the time limit of {self.seconds:g} s has passed"
                raise ApiError(504, message, code="time_limit") from None
            if piece.reason == "failed":
                raise ApiError(500, "the model failed; the server's log says more")
            open_choices -= piece.reason is not None
            yield piece

    def usage(self) -> dict[str, int]:
        """Tokens of the prompt and of all answers, without stop tokens."""
        answers = sum(len(stream.ids) for stream in self.streams)
        asked = self.prepared.prompt_tokens
        return {"prompt_tokens": asked, "completion_tokens": answers, "total_tokens": asked + answers}

    def _put(self, piece: Piece) -> None:
        self.loop.call_soon_threadsafe(self.pieces.put_nowait, piece)


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What ``work`` gives, if the client stays.

    Raises:
        ClientLeft: It did not; the work is cancelled.
    """
    task, gone = asyncio.create_task(work), asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientLeft
        return task.result()
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def finish_reason(stream: Stream) -> str:
    """OpenAI's word for why an answer ended."""
    return {"stop": "stop", "filtered": "content_filter"}.get(stream.reason or "", "length")
