"""Trainable weights -> AdamW with a state in 8 bits, or with one that is paged out of GPU memory (bitsandbytes)."""

import logging
from collections.abc import Iterable
from typing import Any

from llmft.utils.device import cannot_page

log = logging.getLogger(__name__)


def bnb_adamw(
    params: Iterable[Any],
    *,
    lr: float,
    weight_decay: float,
    betas: Iterable[float],
    bits: int,
    paged: bool,
    fallback: bool,
) -> Any:
    """AdamW of bitsandbytes.

    Args:
        params: Weights that are trained.
        lr: Learning rate.
        weight_decay: Decoupled, as in AdamW.
        betas: Two decays.
        bits: 8 or 32, of each of both moments; tensors of fewer than 4,096 weights keep 32.
        paged: Whether the state may move to the CPU's memory when the GPU's runs short.
        fallback: Whether to go on, unpaged, where that cannot be; ``check`` has refused it otherwise.
    """
    from bitsandbytes.optim.adamw import AdamW

    if paged and (why := cannot_page()):
        if not fallback:
            raise ValueError(why)
        log.warning("optim: paging is off (%s), because of optim.fallback=true", why)
        paged = False
    return AdamW(params, lr=lr, weight_decay=weight_decay, betas=tuple(betas), optim_bits=bits, is_paged=paged)
