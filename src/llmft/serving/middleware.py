"""Security middleware: checks host, origin, API key and size of every request; adds headers to every response."""

import asyncio
import hmac
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException

from llmft.serving.errors import ApiError
from llmft.serving.prometheus import Metrics
from llmft.utils.text import printable

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
PATHS = (
    "/",
    "/health",
    "/metrics",
    "/settings",
    "/openapi.json",
    "/v1/models",
    "/v1/chat/completions",
    "/v1/completions",
)
OPEN = ("/", "/health")  # need no key: they reveal nothing of the model
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


class SecurityMiddleware:
    """ASGI middleware.

    Args:
        app: The wrapped application.
        key: The API key, or None.
        hosts: Accepted host names; empty for all. They keep other web pages from reaching a server on this machine by DNS
            rebinding.
        origins: Origins of other web pages that may send requests, e.g. ``https://example.org``.
        max_body_bytes: Max size of a request body.
        body_seconds: Time limit for a request body to arrive.
        metrics: Counters.
    """

    def __init__(
        self,
        app: Any,
        *,
        key: str | None,
        hosts: Sequence[str],
        origins: Sequence[str],
        max_body_bytes: int,
        body_seconds: float,
        metrics: Metrics,
    ) -> None:
        self.app, self.key, self.hosts, self.origins = app, key, [host.lower() for host in hosts], list(origins)
        self.max_body_bytes, self.body_seconds, self.metrics = max_body_bytes, body_seconds, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        start, status = time.perf_counter(), 0

        async def finish(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            self._check(scope["method"], scope["path"], Headers(scope=scope))
            await self.app(scope, self._limited(receive), finish)
        except ApiError as error:
            await error.response()(scope, receive, finish)
        except asyncio.CancelledError:  # the shutdown time has passed
            if not status:
                await ApiError(503, "the server is shutting down", code="shutting_down").response()(
                    scope, receive, finish
                )
        finally:
            path = scope["path"] if scope["path"] in PATHS else "other"
            self.metrics.requests.labels(path, status or "disconnected").inc()
            shown = printable(scope["path"]).replace("\n", " ")[:80]
            log.info(
                "%s %s %s %.2fs", scope["method"], shown, status or "client disconnected", time.perf_counter() - start
            )

    def _check(self, method: str, path: str, headers: Headers) -> None:
        host = headers.get("host", "").lower()
        if self.hosts and _name(host) not in self.hosts:
            raise ApiError(403, "this host name is not allowed (serve.hosts)", code="host")
        origin = headers.get("origin")
        if origin is not None and not self._is_allowed(origin, host):
            raise ApiError(403, "this origin is not allowed (serve.origins)", code="origin")
        if self.key is not None and path not in OPEN and method != "OPTIONS":
            kind, _, given = headers.get("authorization", "").partition(" ")
            if kind.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self.key.encode()):
                raise ApiError(
                    401,
                    "the API key is missing or wrong",
                    code="invalid_api_key",
                    headers={"WWW-Authenticate": "Bearer"},
                )
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self.max_body_bytes:
            raise self._too_large()

    def _is_allowed(self, origin: str, host: str) -> bool:
        return origin in self.origins or (urlsplit(origin).netloc.lower() == host and bool(host))

    def _limited(self, receive: Receive) -> Receive:
        """``receive`` that rejects a body that is too large or too slow."""
        size, complete = 0, False

        async def limited() -> Message:
            nonlocal size, complete
            if complete:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), self.body_seconds)
            except TimeoutError:
                raise HTTPException(408, f"the request took more than {self.body_seconds:g} s to arrive") from None
            size += len(message.get("body", b""))
            complete = not message.get("more_body")
            if size > self.max_body_bytes:
                raise HTTPException(413, str(self._too_large()))
            return message

        return limited

    def _too_large(self) -> ApiError:
        return ApiError(413, f"the request is larger than {self.max_body_bytes} bytes", code="too_large")


def _name(host: str) -> str:
    """A Host header without its port."""
    return host.rpartition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
