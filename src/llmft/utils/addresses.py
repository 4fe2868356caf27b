"""IP addresses: which of them are on the public internet."""

import ipaddress


def parse_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address without its zone; an IPv4 address that is mapped into IPv6 as the IPv4 address.

    Raises:
        ValueError: It is no address.
    """
    address = ipaddress.ip_address(text.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


def is_public(text: str) -> bool:
    """Whether an address is on the public internet: neither private, local, reserved nor multicast."""
    address = parse_address(text)
    return address.is_global and not address.is_multicast
