"""What transformers asks of masks and positions before each forward pass, answered by the host instead of a GPU."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

from transformers import masking_utils

QUESTIONS = ("_ignore_causal_mask_sdpa", "_ignore_bidirectional_mask_sdpa")
# Whether the prompts that this thread answers have no padding; None if nobody said so.
_FULL: ContextVar[bool | None] = ContextVar("full", default=None)


@contextmanager
def known_masks(batch: dict[str, Any], *, encoder_decoder: bool) -> Iterator[None]:
    """Let transformers know whether the batch has padding and where its examples begin; on a GPU only.

    It reads that off the mask and the position ids, for which the host waits, to leave a mask out where it hides nothing. The
    answers are the same. Versions of transformers that have no such question are left as they are.

    Args:
        batch: As ``collate.training_batch`` makes it; without ``layout``, nothing is known.
        encoder_decoder: Whether its mask is the encoder's; the decoder has none, or makes one that hides nothing.
    """
    lengths = batch.get("layout", {}).get("lengths")
    if lengths is None or batch["input_ids"].device.type in ("cpu", "meta"):
        yield
        return
    full = len({*map(sum, lengths)}) == 1
    answers: dict[str, Callable[..., Any]] = {"find_packed_sequence_indices": lambda *_, **__: batch.get("rows")}
    for name in QUESTIONS:
        if hasattr(masking_utils, name):
            of_decoder = encoder_decoder and "causal" in name
            answers[name] = _of_padding(getattr(masking_utils, name), full=full or of_decoder)
    before = {name: getattr(masking_utils, name) for name in answers if hasattr(masking_utils, name)}
    try:
        for name in before:
            setattr(masking_utils, name, answers[name])
        yield
    finally:
        for name, question in before.items():
            setattr(masking_utils, name, question)


def _of_padding(question: Callable[..., bool], *, full: bool) -> Callable[..., bool]:
    """Whether a mask may be left out; what is no question of padding is still asked."""

    def answer(padding_mask: Any = None, *args: Any, **kwargs: Any) -> bool:
        return (full or padding_mask is None) and question(None, *args, **kwargs)

    return answer


@contextmanager
def known_padding(device: Any, *, full: bool) -> Iterator[None]:
    """As ``known_masks`` for answers, in this thread alone: several may answer at a time.

    Args:
        device: That answers.
        full: Whether the prompts have no padding; the answers behind them have none.
    """
    if device.type in ("cpu", "meta"):
        yield
        return
    _answer_for_each_thread()
    token = _FULL.set(full)
    try:
        yield
    finally:
        _FULL.reset(token)


@cache
def _answer_for_each_thread() -> None:
    """Once, and for good: taking it back would take it from another thread."""
    for name in QUESTIONS:
        if hasattr(masking_utils, name):
            setattr(masking_utils, name, _if_known(getattr(masking_utils, name)))


def _if_known(question: Callable[..., bool]) -> Callable[..., bool]:
    def answer(padding_mask: Any = None, *args: Any, **kwargs: Any) -> bool:
        full = _FULL.get()
        if full is None:
            return question(padding_mask, *args, **kwargs)
        return _of_padding(question, full=full)(padding_mask, *args, **kwargs)

    return answer
