"""An https URL with its SHA-256 -> a file in the cache."""

import hashlib
import http.client
import ipaddress
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

from llmft.data.sources.decompress import kind
from llmft.utils.cache import cached_folder
from llmft.utils.errors import UserError

MAX_BYTES = 8 * 2**30
REDIRECTS = 5
SECONDS = 30.0


def fetch(url: str, sha256: str | None, connect: Callable[[SplitResult], Any] | None = None) -> Path:
    """The file of a URL, fetched once and kept under its digest.

    Only https, to public addresses alone, also behind redirects; no proxy is asked.

    Args:
        url: Where it is.
        sha256: What it must have.
        connect: For tests: opens the connection to a host.

    Raises:
        UserError: Not https, no digest given, another digest, too large, an address inside a private network, or no answer.
    """
    name = urlsplit(url).path.rpartition("/")[2]
    if sha256 is None:
        raise UserError(f"data.path={url}: a URL needs data.sha256, so that it is the rows you mean")
    if kind(Path(name)) is None:
        raise UserError(f"data.path={url}: must name a file such as rows.jsonl, got {name!r}")

    def build(folder: Path) -> None:
        try:
            found = _download(url, folder / name, connect or _connect)
        except (OSError, http.client.HTTPException) as error:
            raise UserError(
                f"data.path={url}: cannot be fetched ({str(error) or type(error).__name__}). "
                "Offline: download it elsewhere and pass data.path=FILE, or use data.path=sample."
            ) from None
        if found != sha256:
            raise UserError(f"data.path={url}: has the SHA-256 {found}, but data.sha256 is {sha256}")

    return cached_folder(f"download-{sha256}", build) / name


def _download(url: str, file: Path, connect: Callable[[SplitResult], Any]) -> str:
    for _ in range(REDIRECTS + 1):
        where = _allowed(url)
        connection = connect(where)
        try:
            target = f"{where.path or '/'}?{where.query}" if where.query else where.path or "/"
            connection.request("GET", target, headers={"User-Agent": "llmft", "Accept-Encoding": "identity"})
            answer = connection.getresponse()
            if answer.status in (301, 302, 303, 307, 308):
                url = urljoin(url, answer.headers.get("Location") or "")
                continue
            if answer.status != 200:
                raise OSError(f"the server says {answer.status} {answer.reason}")
            return _save(answer, file)
        finally:
            connection.close()
    raise OSError(f"more than {REDIRECTS} redirects")


def _allowed(url: str) -> SplitResult:
    where = urlsplit(url)
    if where.scheme != "https" or not where.hostname:
        raise UserError(f"data.path={url}: only https is fetched, also behind a redirect")
    if where.username or where.password:
        raise UserError("data.path: a URL must not hold a user name or password")
    return where


def _save(answer: Any, file: Path) -> str:
    announced = answer.headers.get("Content-Length")
    if announced and announced.isdigit() and int(announced) > MAX_BYTES:
        raise OSError(f"it has {int(announced):,} bytes, at most {MAX_BYTES:,} are fetched")
    digest, size = hashlib.sha256(), 0
    with file.open("wb") as handle:
        while chunk := answer.read(2**20):
            size += len(chunk)
            if size > MAX_BYTES:
                raise OSError(f"it has more than {MAX_BYTES:,} bytes")
            digest.update(chunk)
            handle.write(chunk)
    return digest.hexdigest()


def public_address(host: str, port: int) -> tuple[str, int]:
    """An address of a host that is on the public internet, as are all its others.

    Raises:
        OSError: There is none, or one is private, local or reserved.
    """
    found = [entry[4][:2] for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    for address, _ in found:
        if not ipaddress.ip_address(str(address).partition("%")[0]).is_global:
            raise OSError(f"{host} is {address}, an address that is not on the public internet")
    return str(found[0][0]), int(found[0][1])


def _connect(where: SplitResult) -> http.client.HTTPSConnection:
    """A connection to the very address that was looked at, so that a second look-up cannot answer otherwise."""
    host, port = where.hostname or "", where.port or 443
    context = ssl.create_default_context()
    connection = http.client.HTTPSConnection(host, port, timeout=SECONDS, context=context)
    plain = socket.create_connection(public_address(host, port), timeout=SECONDS)
    connection.sock = context.wrap_socket(plain, server_hostname=host)
    return connection
