"""What happens between two steps of ``generate``: sampling, passing tokens on, stopping.

transformers waits for a GPU once a step, to ask whether all sequences have ended. Nothing here waits besides: tokens are copied
while it does, and passed on one step later.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import LogitsProcessor, StoppingCriteria

from llmft.generation.sampling import sample_tokens
from llmft.generation.stream import Stream
from llmft.utils.device import sent


class Sample(LogitsProcessor):
    """Replaces the scores of sampled sequences, so that their argmax is the sampled token."""

    def __init__(self, streams: Sequence[Stream]) -> None:
        self.streams = streams

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores [B, V] of ids [B, S]."""
        rows = {row: s.sampling for row, s in enumerate(self.streams) if s.sampling is not None and s.reason is None}
        return sample_tokens(rows, input_ids, scores) if rows else scores


class Take(StoppingCriteria):
    """Passes each sequence its new tokens (one, but for speculative decoding); stops when all have ended, or for a pause.

    On CUDA a sequence that the host alone ends (a stop string, its limit, a cancellation) ends one step late; the token of that
    step is not taken. ``finish`` takes those of the last step.

    Args:
        streams: The sequences.
        start: Where new tokens begin.
        pause: Called after each step; whether to stop.
    """

    def __init__(self, streams: Sequence[Stream], start: int, pause: Callable[[], bool]) -> None:
        self.streams, self.taken, self.pause = streams, start, pause
        self.copied: tuple[torch.Tensor, Any] | None = None
        self.told: list[bool] = []
        self.flags: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, *_: Any, **__: Any) -> Any:
        """Which sequences have ended, [B], bool."""
        new, self.taken = input_ids[:, self.taken :], input_ids.shape[1]
        if new.device.type == "cuda":
            self.finish()
            event = torch.cuda.Event()
            self.copied = new.to("cpu", non_blocking=True), event
            event.record()
        else:
            self._pass_on(new)
        ended = [stream.reason is not None for stream in self.streams]
        if all(ended) or self.pause():
            ended = [True] * len(ended)
        return self._on_device(ended, input_ids.device)

    def finish(self) -> None:
        """Pass on the tokens that were copied last."""
        if self.copied is None:
            return
        new, event = self.copied
        if not event.query():  # done, as transformers has waited since
            event.synchronize()
        self.copied = None
        self._pass_on(new)

    def _pass_on(self, new: torch.Tensor) -> None:
        for stream, tokens in zip(self.streams, new.tolist(), strict=True):
            for token in tokens:
                if stream.reason is None:
                    stream.take(token)

    def _on_device(self, ended: list[bool], device: torch.device) -> torch.Tensor:
        if self.flags is None or ended != self.told:
            self.told, self.flags = ended, sent(torch.tensor(ended), device)
        return self.flags


class Cancelled(StoppingCriteria):
    """Stops a beam search when all of its sequences were cancelled."""

    def __init__(self, streams: Sequence[Stream]) -> None:
        self.streams = streams

    def __call__(self, input_ids: torch.Tensor, *_: Any, **__: Any) -> Any:
        """The same for all, [B], bool."""
        return torch.full((len(input_ids),), all(stream.is_done() for stream in self.streams), device=input_ids.device)
