"""The HTTP routes."""

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
from llmft.serving.response_stream import ClientDisconnected, ResponseStream, while_connected
from llmft.serving.schema import ChatRequest, CompletionRequest
from llmft.serving.schema import Request as Body
from llmft.utils.text import printable

log = logging.getLogger(__name__)
EVENTS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # a proxy in front must not buffer the events


class Api:
    """The routes over an engine.

    Args:
        builder: Builds jobs from requests.
        engine: Decodes them.
        limits: The ``serve`` keys.
        metrics: Counters.
        page: The chat page.
    """

    def __init__(self, builder: RequestBuilder, engine: Engine, limits: Any, metrics: Metrics, page: Page) -> None:
        self.builder, self.engine, self.limits, self.metrics, self.page = builder, engine, limits, metrics, page
        self.tokenization = ThreadPoolExecutor(1, thread_name_prefix="llmft-tokenization")
        self.created = int(time.time())

    async def models(self) -> dict[str, Any]:
        """The served models, the run's own first."""
        owned = {"object": "model", "created": self.created, "owned_by": "llmft"}
        return {"object": "list", "data": [{"id": name, **owned} for name in self.builder.decoders]}

    async def model(self, name: str) -> dict[str, Any]:
        """One of the served models."""
        found = [model for model in (await self.models())["data"] if model["id"] == name]
        if not found:
            raise errors.ApiError(404, "no such model", param="model", code="model_not_found")
        return found[0]

    async def chat(self, body: ChatRequest, request: Request) -> Response:
        """Chat completions."""
        return await self._answer(body, request, partial(self.builder.chat, body), chat=True)

    async def completion(self, body: CompletionRequest, request: Request) -> Response:
        """Completions of raw text."""
        return await self._answer(body, request, partial(self.builder.completion, body), chat=False)

    async def health(self) -> dict[str, Any]:
        """Health check."""
        if not (self.engine.open and self.engine.thread.is_alive()):
            raise errors.ApiError(503, "the server is shutting down", code="shutting_down")
        return {"status": "ok", "running": self.engine.busy(), "waiting": len(self.engine.waiting)}

    async def prometheus(self) -> Response:
        """Metrics in Prometheus' format."""
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4")

    async def chat_page(self) -> Response:
        """The chat page."""
        return Response(self.page.html, media_type="text/html", headers={"Content-Security-Policy": self.page.policy})

    async def settings(self) -> dict[str, Any]:
        """Settings of the chat page."""
        return self.page.settings

    async def _answer(
        self, body: Body, request: Request, build: Callable[[], GenerationJob], *, chat: bool
    ) -> Response:
        loop = asyncio.get_running_loop()
        job = await loop.run_in_executor(self.tokenization, build)
        response = ResponseStream(self.engine, job, self.limits.max_seconds, self.metrics)
        form = ResponseFormat(body.model, chat=chat)
        if body.stream:
            events = self._events(response, form, usage=body.with_usage())
            first = await while_connected(request, _next(events))  # a full queue is an HTTP status, not an event
            return StreamingResponse(_after(first, events), media_type="text/event-stream", headers=EVENTS)
        with response:
            found = await while_connected(request, texts(response))
            self._log(response)
            return errors.JSONResponse(form.full(found, response))

    async def _events(self, response: ResponseStream, form: ResponseFormat, *, usage: bool) -> AsyncIterator[str]:
        with response:
            async for event in form.events(response, usage=usage):
                yield event
            self._log(response)

    def _log(self, response: ResponseStream) -> None:
        if self.limits.log_prompts:
            tokenizer = self.builder.codecs[response.job.model].tokenizer
            log.info("prompt: %s", printable(tokenizer.decode(list(response.streams[0].prompt))))
            for stream in response.streams:
                log.info("answer: %s", printable(stream.text))


async def _next(events: AsyncIterator[str]) -> str:
    return await anext(events)


async def _after(first: str, rest: AsyncIterator[str]) -> AsyncIterator[str]:
    try:
        yield first
        async for event in rest:
            yield event
    finally:
        await rest.aclose()  # pyright: ignore[reportAttributeAccessIssue]


def application(api: Api, middleware: Callable[[Any], SecurityMiddleware]) -> Any:
    """The ASGI application: routes, error handlers, and the security middleware around them."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(api.engine.close, 5.0)
        api.tokenization.shutdown(wait=False)

    failures: Any = {status: {"model": errors.ErrorBody} for status in (400, 401, 403, 404, 413, 429, 500, 503, 504)}
    # FastAPI must not report to an OpenTelemetry collector
    no_telemetry: Any = dict.fromkeys(("tracing", "metrics", "logs", "operation_spans", "auto_configure"), False)
    app = FastAPI(
        title="llmft", lifespan=lifespan, docs_url=None, redoc_url=None, responses=failures, telemetry=no_telemetry
    )
    app.post("/v1/chat/completions", response_model=None)(api.chat)
    app.post("/v1/completions", response_model=None)(api.completion)
    app.get("/v1/models")(api.models)
    app.get("/v1/models/{name:path}")(api.model)
    app.get("/health")(api.health)
    app.get("/metrics", response_model=None)(api.prometheus)
    if api.page.enabled:
        app.get("/", response_model=None, include_in_schema=False)(api.chat_page)
        app.get("/settings", include_in_schema=False)(api.settings)
    app.add_exception_handler(errors.ApiError, errors.api_error)
    app.add_exception_handler(HTTPException, errors.http_error)
    app.add_exception_handler(RequestValidationError, errors.validation_error)
    app.add_exception_handler(ClientDisconnected, errors.client_disconnected)
    app.add_exception_handler(Exception, errors.internal_error)
    secured = middleware(app)
    if not api.limits.origins:
        return secured
    methods, headers = ("GET", "POST"), ("authorization", "content-type")
    return CORSMiddleware(secured, list(api.limits.origins), allow_methods=methods, allow_headers=headers)
