"""Policy for a judge's URL: allowed schemes and addresses, and no API key over plain HTTP."""

import errno
import ipaddress
import socket
from typing import Any
from urllib.parse import SplitResult, urlsplit

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from llmft.utils.addresses import is_public, parse_address
from llmft.utils.errors import UserError


def checked_url(url: str, *, allow_private: bool, has_key: bool) -> SplitResult:
    """Split and check a URL.

    Raises:
        UserError: A scheme other than http and https, credentials in the URL, an address that is not allowed, or a key would
            be sent unencrypted.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise UserError(f"judge.url={url}: {error}") from None
    if parts.username or parts.password:
        raise UserError(
            "judge.url: must not contain a user name or password; the key comes from the environment (judge.key_env)"
        )
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        raise UserError(f"judge.url={url}: must be http(s)://HOST[:PORT][/PATH]")
    if reason := _refused_literal(host, allow_private=allow_private):
        raise UserError(f"judge.url={url}: {reason}")
    if has_key and parts.scheme == "http" and not is_localhost(host):
        raise UserError(f"judge.url={url}: the key would be sent unencrypted; use https")
    return parts


def is_localhost(host: str) -> bool:
    """Whether a host is ``localhost`` or a loopback address (not a name that only resolves to one)."""
    address = _literal(host)
    return host.rstrip(".").lower() == "localhost" or (address is not None and address.is_loopback)


def refusal_reason(address: str, *, allow_private: bool, this_machine: bool) -> str | None:
    """Why an address may not be contacted, or None.

    Link-local (cloud metadata), multicast, unspecified and reserved addresses are never allowed; private ones only with
    ``allow_private``; loopback only if the URL itself names this machine.
    """
    ip = parse_address(address)
    if ip.is_loopback:
        return None if this_machine else f"{ip} is this machine; use localhost if that is intended"
    if ip.is_link_local or ip.is_multicast or ip.is_unspecified:
        return f"{ip} is a link-local, multicast or unspecified address"
    if not is_public(address) and not allow_private:
        return f"{ip} is a private address; allow it with judge.allow_private=true"
    return None


class CheckedResolver(AbstractResolver):
    """DNS resolver that only returns allowed addresses, so that the checked address is the one connected to."""

    def __init__(self, *, allow_private: bool) -> None:
        self.inner, self.allow_private = ThreadedResolver(), allow_private

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> list[ResolveResult]:
        """The allowed addresses of a host.

        Raises:
            OSError: The host has none.
        """
        found = await self.inner.resolve(host, port, family)
        here = is_localhost(host)
        refused = [refusal_reason(a["host"], allow_private=self.allow_private, this_machine=here) for a in found]
        allowed = [address for address, reason in zip(found, refused, strict=True) if reason is None]
        if not allowed:
            raise OSError(errno.EACCES, str(refused[0] if refused else "it has no address"))
        return allowed

    async def close(self) -> None:
        """Close the inner resolver."""
        await self.inner.close()


def _literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None


def _refused_literal(host: str, *, allow_private: bool) -> str | None:
    if _literal(host) is None:
        return None  # a name: CheckedResolver checks its addresses
    return refusal_reason(host, allow_private=allow_private, this_machine=is_localhost(host))
