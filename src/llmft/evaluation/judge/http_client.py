"""Prompts -> replies of an HTTP server (Ollama's or OpenAI's interface) that is not trusted."""

import asyncio
import json
import os
from collections.abc import Callable, Sequence
from typing import Any

import aiohttp

from llmft.evaluation.judge.requests import Request
from llmft.evaluation.judge.url_policy import CheckedResolver, checked_url, is_this_machine
from llmft.utils.errors import UserError
from llmft.utils.text import printable

BUSY = (408, 425, 429, 500, 502, 503, 504)
PATHS = {"ollama": "/api/chat", "openai": "/chat/completions"}
IN_A_ROW = 5  # failures after which the server is given up
LONGEST_WAIT = 60.0


class Failed(Exception):
    """One request has no reply; others may have."""


class Endpoint:
    """A judge behind HTTP.

    Args:
        settings: The config of the judge group.

    Raises:
        UserError: The URL may not be asked, or the key is missing.
    """

    def __init__(self, settings: Any) -> None:
        self.settings, self.kind = settings, settings.kind
        self.key = os.environ.get(settings.key_env, "").strip() if self.kind == "openai" else ""
        self.url = checked_url(settings.url, allow_private=settings.allow_private, has_key=bool(self.key))
        if self.kind == "openai" and not self.key and not is_this_machine(self.url.hostname or ""):
            raise UserError(
                f"judge=openai: the environment variable {settings.key_env} holds no key for {settings.url}"
            )
        self.failures = 0

    def identity(self) -> dict[str, Any]:
        """What of this judge its scores depend on, besides model, seed and prompt."""
        return {"kind": self.kind, "url": self.settings.url}

    def check(self) -> None:
        """Find out before any work whether the server is there and has the models.

        Raises:
            UserError: It is not, or it lacks one.
        """
        if self.kind == "ollama":
            asyncio.run(self._check_ollama())

    def ask(
        self, requests: Sequence[Request], prompts: Sequence[str], seeds: Sequence[int], took: Callable[..., None]
    ) -> None:
        """Ask some at once; ``took(request, reply, reason)`` is called as each is done, with a reply or the reason for none.

        Raises:
            UserError: The server refuses, redirects, or fails again and again.
        """
        asyncio.run(self._ask_all(requests, prompts, seeds, took))

    async def _ask_all(self, requests: Any, prompts: Any, seeds: Any, took: Callable[..., None]) -> None:
        gate = asyncio.Semaphore(self.settings.concurrency)

        async def one(request: Request, prompt: str, seed: int) -> None:
            async with gate:
                try:
                    took(request, await self._reply(session, request.model, prompt, seed), None)
                    self.failures = 0
                except Failed as error:
                    took(request, None, str(error))
                    self.failures += 1
                    if self.failures >= IN_A_ROW:
                        raise UserError(f"judge: {self.failures} requests in a row failed, the last: {error}") from None

        try:
            async with self._session() as session, asyncio.TaskGroup() as group:
                for request, prompt, seed in zip(requests, prompts, seeds, strict=True):
                    group.create_task(one(request, prompt, seed))
        except ExceptionGroup as errors:  # `except*` would put what it raises into a group again, on Python 3.11.2
            ours, others = errors.split(UserError)
            if ours is None or others is not None:
                raise
            raise ours.exceptions[0] from None

    def _session(self) -> aiohttp.ClientSession:
        resolver = CheckedResolver(allow_private=self.settings.allow_private)
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=resolver, limit=self.settings.concurrency),
            timeout=aiohttp.ClientTimeout(total=self.settings.timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {}),
            auto_decompress=False,  # a small compressed reply could be a very large one
            trust_env=False,
        )

    async def _reply(self, session: aiohttp.ClientSession, model: str, prompt: str, seed: int) -> str:
        body, wait, reason = self._body(model, prompt, seed), self.settings.backoff, ""
        for attempt in range(self.settings.attempts):
            if attempt:
                await asyncio.sleep(min(wait * 2 ** (attempt - 1), LONGEST_WAIT))
            try:
                status, data = await self._post(session, body)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                reason = self._said(str(error) or type(error).__name__)
                continue
            if status not in BUSY:
                return self._text(status, data)
            reason = f"HTTP {status}: {self._said(data)}"
        raise Failed(f"{reason} ({self.settings.attempts} attempts)")

    async def _post(self, session: aiohttp.ClientSession, body: Any) -> tuple[int, str]:
        url = self.url.geturl().rstrip("/") + PATHS[self.kind]
        async with session.post(url, json=body, allow_redirects=False) as response:
            if 300 <= response.status < 400:
                place = self._said(response.headers.get("Location", "nowhere"))
                raise UserError(f"judge.url={self.settings.url}: redirects to {place}, which is not followed")
            return response.status, await self._read(response)

    async def _read(self, response: aiohttp.ClientResponse) -> str:
        data, most = bytearray(), self.settings.max_bytes
        async for chunk in response.content.iter_any():
            data += chunk
            if len(data) > most:
                response.close()
                raise Failed(f"the reply is larger than judge.max_bytes={most}")
        return data.decode("utf-8", "replace")

    def _body(self, model: str, prompt: str, seed: int) -> dict[str, Any]:
        body = {"model": model, "messages": [{"role": "user", "content": prompt}], "stream": False}
        tokens = self.settings.max_new_tokens
        if self.kind == "openai":
            return {**body, "temperature": 0, "seed": seed, "max_tokens": tokens}
        options = {"temperature": 0, "seed": seed, "num_predict": tokens, "num_ctx": _room(prompt, tokens)}
        return {**body, "options": options}

    def _text(self, status: int, data: str) -> str:
        if status != 200:
            raise UserError(f"judge.url={self.settings.url}: HTTP {status}: {self._said(data)}")
        try:
            reply = json.loads(data)
            text = reply["message"]["content"] if self.kind == "ollama" else reply["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError, RecursionError):
            raise Failed(f"not the JSON of {self.kind}'s interface: {self._said(data)}") from None
        if not isinstance(text, str):
            raise Failed(f"a reply without text: {self._said(data)}")
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
                f"judge=ollama: no server answers at {self.settings.url} ({self._said(str(error))}); {start}"
            ) from None
        except (Failed, ValueError, KeyError, TypeError):
            raise UserError(f"judge=ollama: what answers at {self.settings.url} is no Ollama server; {start}") from None
        missing = [m for m in self.settings.models if m not in known and f"{m}:latest" not in known]
        if missing:
            has = ", ".join(map(str, known)) or "none"
            raise UserError(
                f"judge=ollama: has no model {missing[0]} (`ollama pull {missing[0]}`); there are: {self._said(has)}"
            )

    def _said(self, text: str) -> str:
        """What a server says, to be shown: one line, short, without the key."""
        text = printable(" ".join(text.split()))
        return (text.replace(self.key, "***") if self.key else text)[:200]


def _room(prompt: str, tokens: int) -> int:
    """Positions for Ollama, which cuts a longer prompt without a word; few different values, as each reloads its model."""
    room = 4096
    while room < tokens + len(prompt.encode("utf-8", "replace")) // 2:
        room *= 2
    return room
