"""Download a file from an https URL into the cache, and check its SHA-256."""

import hashlib
import http.client
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

from llmft.data.sources.decompress import kind
from llmft.utils.addresses import is_public
from llmft.utils.cache import cached_folder
from llmft.utils.errors import UserError

MAX_BYTES = 8 * 2**30
REDIRECTS = 5
SECONDS = 30.0


def fetch(url: str, sha256: str | None, connect: Callable[[SplitResult], Any] | None = None) -> Path:
    """Download a file once; it is cached under its digest.

    Only https and only public addresses are allowed, also for redirects; proxies are not used.

    Args:
        url: Of the file.
        sha256: Expected digest; required.
        connect: Opens the connection to a host (for tests).

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
            digest = _download(url, folder / name, connect or _connect)
        except (OSError, http.client.HTTPException) as error:
            raise UserError(
                f"data.path={url}: cannot be fetched ({str(error) or type(error).__name__}). "
                "Offline: download it elsewhere and pass data.path=FILE, or use data.path=sample."
            ) from None
        if digest != sha256:
            raise UserError(f"data.path={url}: has the SHA-256 {digest}, but data.sha256 is {sha256}")

    return cached_folder(f"download-{sha256}", build) / name


def _download(url: str, file: Path, connect: Callable[[SplitResult], Any]) -> str:
    for _ in range(REDIRECTS + 1):
        parts = _checked_url(url)
        connection = connect(parts)
        try:
            target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
            connection.request("GET", target, headers={"User-Agent": "llmft", "Accept-Encoding": "identity"})
            response = connection.getresponse()
            if response.status in (301, 302, 303, 307, 308):
                url = urljoin(url, response.headers.get("Location") or "")
                continue
            if response.status != 200:
                raise OSError(f"the server answers {response.status} {response.reason}")
            return _save(response, file)
        finally:
            connection.close()
    raise OSError(f"more than {REDIRECTS} redirects")


def _checked_url(url: str) -> SplitResult:
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname:
        raise UserError(f"data.path={url}: only https is fetched, also behind a redirect")
    if parts.username or parts.password:
        raise UserError("data.path: a URL must not hold a user name or password")
    return parts


def _save(response: Any, file: Path) -> str:
    announced = response.headers.get("Content-Length")
    if announced and announced.isdigit() and int(announced) > MAX_BYTES:
        raise OSError(f"it has {int(announced):,} bytes, at most {MAX_BYTES:,} are fetched")
    digest, size = hashlib.sha256(), 0
    with file.open("wb") as handle:
        while chunk := response.read(2**20):
            size += len(chunk)
            if size > MAX_BYTES:
                raise OSError(f"it has more than {MAX_BYTES:,} bytes")
            digest.update(chunk)
            handle.write(chunk)
    return digest.hexdigest()


def public_address(host: str, port: int) -> tuple[str, int]:
    """An address of a host whose addresses are all on the public internet.

    Raises:
        OSError: It has none, or one of them is private, local or reserved.
    """
    found = [entry[4][:2] for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    for address, _ in found:
        if not is_public(str(address)):
            raise OSError(f"{host} is {address}, an address that is not on the public internet")
    return str(found[0][0]), int(found[0][1])


def _connect(parts: SplitResult) -> http.client.HTTPSConnection:
    """Connect to the address that was checked: a second look-up of the name could give another one (DNS rebinding)."""
    host, port = parts.hostname or "", parts.port or 443
    context = ssl.create_default_context()
    connection = http.client.HTTPSConnection(host, port, timeout=SECONDS, context=context)
    raw = socket.create_connection(public_address(host, port), timeout=SECONDS)
    connection.sock = context.wrap_socket(raw, server_hostname=host)
    return connection
