"""What transformers asks of masks and positions before each forward pass, answered by the host instead of a GPU."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from transformers import masking_utils


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
    for name in ("_ignore_causal_mask_sdpa", "_ignore_bidirectional_mask_sdpa"):
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
