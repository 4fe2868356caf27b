"""New sequences -> batches before their first step; common and known prefixes of prompts are not computed again."""

import inspect
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch

from llmft.generation.batch import Batch, Prefix, side_by_side, started
from llmft.generation.prefix_cache import PrefixCache, States
from llmft.generation.stream import Stream
from llmft.utils.device import sent

# A shorter prefix is not looked up: every chat prompt begins with the same few tokens.
SHORTEST = 16
# So many tokens take as long as reading the weights once more. Measured with SmolLM2 on a CPU (3 ms a token, 63 ms for the
# first); a GPU takes some hundred tokens as fast as one.
TOKENS_OF_A_PASS = {"cpu": 32}
TOKENS_OF_A_PASS_ELSEWHERE = 256


NONE = Prefix(0, None)


class Prefill:
    """Lays out new sequences of one model.

    Args:
        model: A transformers or peft model.
        pad_id: Token id of padding.
        scope: Model and adapter state, as for ``PrefixCache``.
        compute: Called with token ids and a known prefix of them; returns the keys and values of all of them.

    Attributes:
        can_share: Whether the model's keys and values can be used again.
        prefixes: Keys and values of earlier prompts, or None.
        remembers: Whether prompts and answers are added to ``prefixes``.
    """

    def __init__(
        self, model: Any, pad_id: int, scope: Hashable, compute: Callable[[Sequence[int], Prefix], States]
    ) -> None:
        self.model, self.pad_id, self.scope, self.compute = model, pad_id, scope, compute
        self.worth = TOKENS_OF_A_PASS.get(model.device.type, TOKENS_OF_A_PASS_ELSEWHERE)
        self.can_share = can_share(model)
        self.prefixes: PrefixCache | None = None
        self.remembers = False
        self.shared: tuple[Sequence[int], States] = ((), [])

    def share(self, prompts: Sequence[Sequence[int]]) -> None:
        """Compute the common prefix of prompts that are decoded in several batches, for all of them.

        Of some of these prompts it goes on from there: what they have in common is at least as long.
        """
        common = common_prefix(prompts) if self.can_share and prompts else []
        known = self._longest(common)
        if (len(common) - known.length) * (len(prompts) - 1) > self.worth:
            self.shared = common, self.compute(common, known)

    def batches(self, streams: Sequence[Stream]) -> list[Batch]:
        """Batches before their first step: sequences that have about as many tokens left to compute."""
        prefixes = self._prefixes([stream.prompt for stream in streams])
        own = [len(stream.prompt) - known.length for stream, known in zip(streams, prefixes, strict=True)]
        return [
            started([streams[row] for row in rows], [prefixes[row] for row in rows], self.pad_id, self.model)
            for rows in similar(own, self.worth)
        ]

    def left_padded(self, prompts: Sequence[Sequence[int]]) -> States | None:
        """Keys and values of the common prefix in the first columns of prompts that are padded on the left; None without one.

        The columns are the same in every row, so a shorter prompt, which begins later, has less of the prefix in them.
        """
        common = self._common(prompts) if self.can_share else NONE
        if not common.length:
            return None
        longest = max(map(len, prompts))
        lengths = [common.length - longest + len(prompt) for prompt in prompts]
        prefixes = {length: _beginning(common, length) for length in lengths}
        return side_by_side([prefixes[length] for length in lengths], common.length)

    def remember(self, batch: Batch, streams: Sequence[Stream]) -> None:
        """Store the keys and values of some sequences of a batch."""
        if self.prefixes is None or not self.remembers:
            return
        for row, stream in enumerate(batch.streams):
            if stream in streams:
                positions = sent(batch.mask[row, :-1].nonzero()[:, 0], batch.ids.device)
                ids = [*stream.prompt, *stream.ids][: len(positions)]  # behind its end a sequence has padding
                self.prefixes.add(self.scope, ids, _Reader(batch.cache, row, positions[: len(ids)]))

    def _prefixes(self, prompts: Sequence[Sequence[int]]) -> list[Prefix]:
        """The known prefix of each prompt; their common prefix is computed if that is less work."""
        if not self.can_share:
            return [NONE] * len(prompts)
        common = self._common(prompts)
        found: dict[tuple[int, ...], Prefix] = {}
        prefixes = []
        for prompt in prompts:
            known = self._longest(prompt[:-1])
            if known.length and self.prefixes and self.remembers:
                self.prefixes.count(known.length)
            known = max(known, common, key=lambda one: one.length)
            prefixes.append(found.setdefault(tuple(prompt[: known.length]), known))
        return prefixes

    def _common(self, prompts: Sequence[Sequence[int]]) -> Prefix:
        common = common_prefix(prompts)
        known = self._longest(common)
        if (len(common) - known.length) * (len(prompts) - 1) <= self.worth:
            return known
        states = self.compute(common, known)
        if self.prefixes and self.remembers:
            self.prefixes.add(self.scope, common, lambda start: _copies(states, start))
        return Prefix(len(common), states)

    def _longest(self, ids: Sequence[int]) -> Prefix:
        found = Prefix(*self.prefixes.longest(self.scope, ids)) if self.prefixes else NONE
        known, states = self.shared
        length = next((i for i, (one, other) in enumerate(zip(known, ids, strict=False)) if one != other), None)
        length = min(len(known), len(ids)) if length is None else length
        if length > found.length:
            found = _beginning(Prefix(len(known), states), length)
        return found if found.length >= SHORTEST else NONE


class _Reader:
    """Copies of the keys and values of one row, at some positions."""

    def __init__(self, cache: Any, row: int, positions: torch.Tensor) -> None:
        self.cache, self.row, self.positions = cache, row, positions

    def __call__(self, start: int) -> States:
        at = self.positions[start:]
        layers = self.cache.layers
        return [tuple(one[self.row, None][:, :, at] for one in (layer.keys, layer.values)) for layer in layers]


def _beginning(known: Prefix, length: int) -> Prefix:
    """The first ``length`` tokens of a prefix; none of it if that is below 1."""
    if length >= known.length or known.states is None:
        return known
    return (
        Prefix(length, [tuple(one[:, :, :length] for one in layer) for layer in known.states]) if length > 0 else NONE
    )


def _copies(states: States, start: int) -> States:
    return [tuple(one[:, :, start:].clone() for one in layer) for layer in states]


def common_prefix(prompts: Sequence[Sequence[int]]) -> list[int]:
    """The longest common prefix that leaves at least one token of each prompt, whose logits give the first token."""
    first, last = list(min(prompts, key=list)), list(max(prompts, key=list))
    shortest = min(map(len, prompts)) - 1
    return first[: next((i for i in range(shortest) if first[i] != last[i]), shortest)]


def similar(lengths: Sequence[int], worth: int) -> list[list[int]]:
    """Rows in groups of similar length, where padding takes no more time than another pass, which takes ``worth`` tokens."""
    groups: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if groups and (lengths[row] - lengths[groups[-1][-1]]) * len(groups[-1]) <= worth:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def can_share(model: Any) -> bool:
    """Whether keys and values of a prefix depend on its tokens alone, and a prompt may have padding in its middle.

    That takes positions from ``position_ids``, and rotary angles that do not depend on the length of the sequence.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    rope = getattr(inner.config, "rope_parameters", None) or {}
    kinds = [one.get("rope_type") for one in (rope, *rope.values()) if isinstance(one, dict)]
    fixed = not any("dynamic" in str(kind) or kind == "longrope" for kind in kinds)
    return fixed and "position_ids" in inspect.signature(inner.forward).parameters
