"""The application: its routes, and what they need."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from llmft.serving import errors
from llmft.serving.chat_page import Page
from llmft.serving.engine import Engine
from llmft.serving.middleware import SecurityMiddleware
from llmft.serving.prometheus import Metrics
from llmft.serving.request_builder import GenerationJob, RequestBuilder
from llmft.serving.response_format import ResponseFormat, texts
from llmft.serving.response_stream import ClientLeft, ResponseStream, while_connected
from llmft.serving.schema import ChatRequest, CompletionRequest
from llmft.serving.schema import Request as Body
from llmft.utils.text import printable

log = logging.getLogger(__name__)
EVENTS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # a proxy in front shall not collect the pieces


class Api:
    """The routes over an engine.

    Args:
        asking: Makes streams of requests.
        engine: Answers them.
        limits: The ``serve`` keys.
        metrics: Counts.
        page: The chat page.
    """

    def __init__(self, asking: RequestBuilder, engine: Engine, limits: Any, metrics: Metrics, page: Page) -> None:
        self.asking, self.engine, self.limits, self.metrics, self.page = asking, engine, limits, metrics, page
        self.tokenising = ThreadPoolExecutor(1, thread_name_prefix="llmft-tokenising")
        self.created = int(time.time())

    async def models(self) -> dict[str, Any]:
        """The models that may be asked; the first is the run's own."""
        owned = {"object": "model", "created": self.created, "owned_by": "llmft"}
        return {"object": "list", "data": [{"id": name, **owned} for name in self.asking.decoders]}

    async def model(self, name: str) -> dict[str, Any]:
        """One of them."""
        found = [model for model in (await self.models())["data"] if model["id"] == name]
        if not found:
            raise errors.ApiError(404, "there is no such model", param="model", code="model_not_found")
        return found[0]

    async def chat(self, body: ChatRequest, request: Request) -> Response:
        """An answer to a conversation."""
        return await self._answer(body, request, partial(self.asking.chat, body), chat=True)

    async def completion(self, body: CompletionRequest, request: Request) -> Response:
        """The continuation of raw text."""
        return await self._answer(body, request, partial(self.asking.completion, body), chat=False)

    async def health(self) -> dict[str, Any]:
        """Whether requests can be answered."""
        if not (self.engine.open and self.engine.thread.is_alive()):
            raise errors.ApiError(503, "the server is going down", code="shutting_down")
        return {"status": "ok", "running": self.engine.busy(), "waiting": len(self.engine.waiting)}

    async def counts(self) -> Response:
        """Counters in Prometheus' format."""
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4")

    async def chat_page(self) -> Response:
        """The chat page."""
        return Response(self.page.html, media_type="text/html", headers={"Content-Security-Policy": self.page.policy})

    async def settings(self) -> dict[str, Any]:
        """What the chat page needs to know."""
        return self.page.settings

    async def _answer(
        self, body: Body, request: Request, prepare: Callable[[], GenerationJob], *, chat: bool
    ) -> Response:
        loop = asyncio.get_running_loop()
        prepared = await loop.run_in_executor(self.tokenising, prepare)
        reply, shape = (
            ResponseStream(self.engine, prepared, self.limits.max_seconds, self.metrics),
            ResponseFormat(body.model, chat=chat),
        )
        if body.stream:
            events = self._events(reply, shape, usage=body.with_usage())
            first = await while_connected(request, _next(events))  # a full queue is a status, not an event
            return StreamingResponse(_after(first, events), media_type="text/event-stream", headers=EVENTS)
        with reply:
            found = await while_connected(request, texts(reply))
            self._log(reply)
            return errors.JSONResponse(shape.whole(found, reply))

    async def _events(self, reply: ResponseStream, shape: ResponseFormat, *, usage: bool) -> AsyncIterator[str]:
        with reply:
            async for event in shape.events(reply, usage=usage):
                yield event
            self._log(reply)

    def _log(self, reply: ResponseStream) -> None:
        if self.limits.log_prompts:
            codec, streams = self.asking.codecs[reply.prepared.model], reply.streams
            asked = codec.tokenizer.decode(list(streams[0].prompt))
            log.info("asked: %s", printable(asked))
            for stream in streams:
                log.info("answered: %s", printable(stream.text))


async def _next(events: AsyncIterator[str]) -> str:
    return await anext(events)


async def _after(first: str, rest: AsyncIterator[str]) -> AsyncIterator[str]:
    try:
        yield first
        async for event in rest:
            yield event
    finally:
        await rest.aclose()  # pyright: ignore[reportAttributeAccessIssue]


def application(api: Api, gate: Callable[[Any], SecurityMiddleware]) -> Any:
    """The app: routes, error handlers, and the gate that every request passes."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(api.engine.close, 5.0)
        api.tokenising.shutdown(wait=False)

    failures: Any = {status: {"model": errors.ErrorBody} for status in (400, 401, 403, 404, 413, 429, 500, 503, 504)}
    # what FastAPI would tell an OpenTelemetry collector stays untold
    silent: Any = dict.fromkeys(("tracing", "metrics", "logs", "operation_spans", "auto_configure"), False)
    app = FastAPI(title="llmft", lifespan=lifespan, docs_url=None, redoc_url=None, responses=failures, telemetry=silent)
    app.post("/v1/chat/completions", response_model=None)(api.chat)
    app.post("/v1/completions", response_model=None)(api.completion)
    app.get("/v1/models")(api.models)
    app.get("/v1/models/{name:path}")(api.model)
    app.get("/health")(api.health)
    app.get("/metrics", response_model=None)(api.counts)
    if api.page.shown:
        app.get("/", response_model=None, include_in_schema=False)(api.chat_page)
        app.get("/settings", include_in_schema=False)(api.settings)
    app.add_exception_handler(errors.ApiError, errors.api_error)
    app.add_exception_handler(HTTPException, errors.http_error)
    app.add_exception_handler(RequestValidationError, errors.invalid)
    app.add_exception_handler(ClientLeft, errors.left)
    app.add_exception_handler(Exception, errors.broken)
    behind = gate(app)
    if not api.limits.origins:
        return behind
    methods, headers = ("GET", "POST"), ("authorization", "content-type")
    return CORSMiddleware(behind, list(api.limits.origins), allow_methods=methods, allow_headers=headers)
