"""Traverse a config tree."""

from collections.abc import Iterator
from typing import Any


def walk(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ``(path, node)`` for a config as plain data and everything below it, parents first.

    Args:
        node: Nested dicts, lists and scalars, as ``OmegaConf.to_container`` returns.
        path: Path of ``node``. Keys are joined with dots, list items are ``path[0]``.
    """
    yield path, node
    if isinstance(node, dict):
        for key, child in node.items():
            yield from walk(child, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for number, child in enumerate(node):
            yield from walk(child, f"{path}[{number}]")
