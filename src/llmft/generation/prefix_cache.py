"""Token ids -> the keys and values that a model has computed for them: a tree in which equal prefixes are stored once."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field

import torch

MIB = 2**20
# Keys and values [1, heads, tokens, head size] of each layer.
States = Sequence[tuple[torch.Tensor, ...]]


@dataclass(eq=False)
class _Node:
    """Some tokens behind those of its parent; its children begin with different tokens."""

    ids: Sequence[int]
    states: States
    parent: "_Node | None"
    children: dict[int, "_Node"] = field(default_factory=dict)

    def bytes(self) -> int:
        return sum(one.numel() * one.element_size() for layer in self.states for one in layer)


class PrefixCache:
    """Keys and values of prompts and answers; the least recently used ones make room for new ones.

    Args:
        mib: Max MiB of keys and values.
        device: Where they are kept; None is where they were computed.

    Attributes:
        bytes: Size of the keys and values that are stored.
        hits: Number of prompts that began with stored tokens.
        tokens: Number of tokens that these prompts did not compute.
    """

    def __init__(self, mib: float, device: str | None = None) -> None:
        self.limit, self.device = mib * MIB, device
        self.bytes = self.hits = self.tokens = 0
        self.roots: dict[Hashable, _Node] = {}
        # from the least to the most recently used; a parent comes after all of its descendants
        self.order: OrderedDict[_Node, None] = OrderedDict()

    def longest(self, scope: Hashable, ids: Sequence[int]) -> tuple[int, States | None]:
        """The longest prefix of ``ids`` that is stored: its length, and its keys and values (None of length 0).

        Args:
            scope: Model and adapter state; other weights compute other keys and values.
            ids: Token ids.
        """
        found, parts = 0, []
        for node, length in self._path(scope, ids):
            self._use(node)
            found += length
            parts.append([tuple(one[:, :, :length] for one in layer) for layer in node.states])
        if len(parts) < 2:
            return found, parts[0] if parts else None
        return found, [
            tuple(torch.cat(list(ones), dim=2) for ones in zip(*layers, strict=True))
            for layers in zip(*parts, strict=True)
        ]

    def count(self, tokens: int) -> None:
        """Count a prompt that did not compute its first ``tokens`` tokens."""
        self.hits, self.tokens = self.hits + 1, self.tokens + tokens

    def add(self, scope: Hashable, ids: Sequence[int], read: Callable[[int], States]) -> None:
        """Store the keys and values of ``ids``.

        Args:
            scope: As for ``longest``.
            ids: Token ids.
            read: Returns, as a copy of its own, the keys and values from a position to the end; not called if all are stored.
        """
        node, at = self.roots.setdefault(scope, _Node((), [], None)), 0
        for child, length in list(self._path(scope, ids)):
            node, at = self._split(child, length), at + length
        self._use(node)
        if at == len(ids):
            return
        states = [tuple(one.to(self.device or one.device) for one in layer) for layer in read(at)]
        new = node.children[ids[at]] = _Node(tuple(ids[at:]), states, node)
        self.bytes += new.bytes()
        self._use(new)
        while self.bytes > self.limit:
            self._drop(next(iter(self.order)))

    def _path(self, scope: Hashable, ids: Sequence[int]) -> Iterator[tuple[_Node, int]]:
        """The nodes that ``ids`` begin with, and how many tokens of each."""
        node, at = self.roots.get(scope), 0
        while node and at < len(ids) and (node := node.children.get(ids[at])):
            most = min(len(node.ids), len(ids) - at)
            length = next((i for i in range(most) if node.ids[i] != ids[at + i]), most)
            yield node, length
            if length < len(node.ids):
                return
            at += length

    def _split(self, node: _Node, length: int) -> _Node:
        """The node of the first ``length`` tokens of ``node``, which keeps the rest."""
        if length == len(node.ids):
            return node
        assert node.parent
        # copies, so that either half can be dropped
        states = [tuple(one[:, :, :length].clone() for one in layer) for layer in node.states]
        upper = _Node(node.ids[:length], states, node.parent, {node.ids[length]: node})
        node.parent.children[node.ids[0]] = upper
        node.states = [tuple(one[:, :, length:].clone() for one in layer) for layer in node.states]
        node.ids, node.parent = node.ids[length:], upper
        self._use(upper)
        return upper

    def _use(self, node: _Node | None) -> None:
        """Make a node, and after it its ancestors, the most recently used."""
        while node and node.parent:
            self.order[node] = None
            self.order.move_to_end(node)
            node = node.parent

    def _drop(self, node: _Node) -> None:
        assert node.parent
        assert not node.children
        del self.order[node], node.parent.children[node.ids[0]]
        self.bytes -= node.bytes()
