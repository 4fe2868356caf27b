"""Judge backend for HTTP servers with the Ollama or OpenAI API; the server is not trusted."""

import asyncio
import json
import os
from collections.abc import Callable, Sequence
from typing import Any

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from llmft.config.schema import judge as schema
from llmft.evaluation.judge.requests import Request
from llmft.evaluation.judge.url_policy import CheckedResolver, checked_url, is_localhost
from llmft.utils.errors import UserError
from llmft.utils.text import printable

RETRY_STATUS = (408, 425, 429, 500, 502, 503, 504)
REFUSED_STATUS = (401, 402, 403, 404, 405, 407)  # besides redirects: another request would meet the same
PATHS = {"ollama": "/api/chat", "openai": "/chat/completions"}
MAX_CONSECUTIVE_FAILURES = 5
MAX_BACKOFF = 60.0  # seconds


class RequestFailed(Exception):
    """A single request failed.

    Args:
        reason: Why.
        by_server: Whether the server, and not this request, is the likely cause; several in a row end the judging.
    """

    def __init__(self, reason: str, *, by_server: bool = False) -> None:
        super().__init__(reason)
        self.by_server = by_server


class HttpJudge:
    """A judge behind an HTTP API.

    Args:
        settings: The config of the judge group.

    Raises:
        UserError: The URL is not allowed, or the API key is missing.
    """

    def __init__(self, settings: schema.HttpJudge) -> None:
        self.settings, self.kind = settings, settings.kind
        self.key = os.environ.get(settings.key_env or "", "").strip() if self.kind == "openai" else ""
        self.url = checked_url(settings.url, allow_private=settings.allow_private, has_key=bool(self.key))
        if self.kind == "openai" and not self.key and not is_localhost(self.url.hostname or ""):
            raise UserError(
                f"judge=openai: the environment variable {settings.key_env} holds no key for {settings.url}"
            )
        self.failures, self.given_up = 0, ""

    def identity(self) -> dict[str, Any]:
        """What the scores depend on besides model, seed and prompt; part of the key of stored replies."""
        return {"kind": self.kind, "url": self.settings.url}

    def check(self) -> None:
        """Check that an Ollama server is reachable and has the models.

        Raises:
            UserError: It is not reachable, or lacks a model.
        """
        if self.kind == "ollama":
            asyncio.run(self._check_ollama())

    def query(
        self, requests: Sequence[Request], prompts: Sequence[str], seeds: Sequence[int], on_reply: Callable[..., None]
    ) -> None:
        """Send the prompts concurrently; whatever a request meets costs that request alone.

        After five requests in a row that failed because of the server, the remaining ones are not sent: ``on_reply`` is not
        called for them, and their ``reason`` says so.

        Args:
            requests: The requests.
            prompts: One prompt per request.
            seeds: One seed per request.
            on_reply: Called as ``on_reply(request, reply, reason)`` when a request is done, with the reply or the reason why
                there is none.
        """
        self.failures, self.given_up = 0, ""
        asyncio.run(self._query_all(requests, prompts, seeds, on_reply))

    async def _query_all(self, requests: Any, prompts: Any, seeds: Any, on_reply: Callable[..., None]) -> None:
        gate = asyncio.Semaphore(self.settings.concurrency)

        async def one(request: Request, prompt: str, seed: int) -> None:
            async with gate:
                if self.given_up:
                    request.reason = f"failed: {self.given_up}"
                    return
                try:
                    reply = await self._reply(session, request.model, prompt, seed)
                except RequestFailed as error:
                    self._count(error)
                    on_reply(request, None, str(error))
                    return
                self.failures = 0
                on_reply(request, reply, None)

        try:
            async with self._session() as session, asyncio.TaskGroup() as group:
                for request, prompt, seed in zip(requests, prompts, seeds, strict=True):
                    group.create_task(one(request, prompt, seed))
        except ExceptionGroup as errors:  # replies could not be stored
            raise errors.exceptions[0] from None

    def _count(self, error: RequestFailed) -> None:
        self.failures = self.failures + 1 if error.by_server else 0
        if self.failures >= MAX_CONSECUTIVE_FAILURES:
            self.given_up = f"not sent, because {self.failures} requests in a row failed (the last: {error})"

    def _session(self) -> aiohttp.ClientSession:
        resolver = CheckedResolver(allow_private=self.settings.allow_private)
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=resolver, limit=self.settings.concurrency),
            timeout=aiohttp.ClientTimeout(total=self.settings.timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {}),
            auto_decompress=False,  # a small compressed reply could expand to a very large one
            trust_env=False,
        )

    async def _reply(self, session: aiohttp.ClientSession, model: str, prompt: str, seed: int) -> str:
        body, wait, reason = self._body(model, prompt, seed), self.settings.backoff, ""
        for attempt in range(self.settings.attempts):
            if attempt:
                await asyncio.sleep(min(wait * 2 ** (attempt - 1), MAX_BACKOFF))
            try:
                status, data = await self._post(session, body)
            except (aiohttp.ClientError, HttpProcessingError, TimeoutError, OSError, ValueError) as error:
                reason = self._excerpt(str(error) or type(error).__name__)
                continue
            if status not in RETRY_STATUS:
                return self._text(status, data)
            reason = f"HTTP {status}: {self._excerpt(data)}"
        raise RequestFailed(f"{reason} ({self.settings.attempts} attempts)", by_server=True)

    async def _post(self, session: aiohttp.ClientSession, body: Any) -> tuple[int, str]:
        url = self.url.geturl().rstrip("/") + PATHS[self.kind]
        async with session.post(url, json=body, allow_redirects=False) as response:
            if 300 <= response.status < 400:
                location = self._excerpt(response.headers.get("Location", "nowhere"))
                raise RequestFailed(
                    f"HTTP {response.status}: redirects to {location}, which is not followed", by_server=True
                )
            return response.status, await self._read(response)

    async def _read(self, response: aiohttp.ClientResponse) -> str:
        data, max_bytes = bytearray(), self.settings.max_bytes
        async for chunk in response.content.iter_any():
            data += chunk
            if len(data) > max_bytes:
                response.close()
                raise RequestFailed(f"the reply is larger than judge.max_bytes={max_bytes}")
        return data.decode("utf-8", "replace")

    def _body(self, model: str, prompt: str, seed: int) -> dict[str, Any]:
        body = {"model": model, "messages": [{"role": "user", "content": prompt}], "stream": False}
        tokens = self.settings.max_new_tokens
        if self.kind == "openai":
            return {**body, "temperature": 0, "seed": seed, "max_tokens": tokens}
        options = {"temperature": 0, "seed": seed, "num_predict": tokens, "num_ctx": _context_length(prompt, tokens)}
        return {**body, "options": options}

    def _text(self, status: int, data: str) -> str:
        if status != 200:
            raise RequestFailed(f"HTTP {status}: {self._excerpt(data)}", by_server=status in REFUSED_STATUS)
        try:
            reply = json.loads(data)
            text = reply["message"]["content"] if self.kind == "ollama" else reply["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError, RecursionError):
            raise RequestFailed(f"not a JSON reply of the {self.kind} API: {self._excerpt(data)}") from None
        if not isinstance(text, str):
            raise RequestFailed(f"a reply without text: {self._excerpt(data)}")
        return text[:10_000].replace(self.key, "***") if self.key else text[:10_000]

    async def _check_ollama(self) -> None:
        start = "start it (`ollama serve`), or set judge.url"
        try:
            async with (
                self._session() as session,
                session.get(self.url.geturl().rstrip("/") + "/api/tags", allow_redirects=False) as response,
            ):
                known = [model["name"] for model in json.loads(await self._read(response))["models"]]
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise UserError(
                f"judge=ollama: no server answers at {self.settings.url} ({self._excerpt(str(error))}); {start}"
            ) from None
        except (RequestFailed, ValueError, KeyError, TypeError):
            raise UserError(
                f"judge=ollama: the server at {self.settings.url} is not an Ollama server; {start}"
            ) from None
        missing = [m for m in self.settings.models if m not in known and f"{m}:latest" not in known]
        if missing:
            has = ", ".join(map(str, known)) or "none"
            raise UserError(
                f"judge=ollama: has no model {missing[0]} (`ollama pull {missing[0]}`); available: {self._excerpt(has)}"
            )

    def _excerpt(self, text: str) -> str:
        """Text from the server for a message: one line, at most 200 characters, without the API key."""
        text = printable(" ".join(text.split()))
        return (text.replace(self.key, "***") if self.key else text)[:200]


def _context_length(prompt: str, tokens: int) -> int:
    """``num_ctx`` for Ollama, which silently truncates longer prompts; a power of two, since each new value reloads the model."""
    length = 4096
    while length < tokens + len(prompt.encode("utf-8", "replace")) // 2:
        length *= 2
    return length
