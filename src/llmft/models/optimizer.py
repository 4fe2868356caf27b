"""AdamW of bitsandbytes: states in 8 bits, or paged out of GPU memory."""

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
        params: Trainable parameters.
        lr: Learning rate.
        weight_decay: Decoupled, as in AdamW.
        betas: Decay rates of both moments.
        bits: 8 or 32, of each moment; tensors of fewer than 4,096 weights keep 32.
        paged: Whether the states may move to CPU memory when GPU memory runs out.
        fallback: Whether to train unpaged on a device that cannot page; without it, the config check refuses that.

    Raises:
        ValueError: The device cannot page, and ``fallback`` is false.
    """
    from bitsandbytes.optim.adamw import AdamW

    if paged and (why := cannot_page()):
        if not fallback:
            raise ValueError(why)
        log.warning("optim: paging is off (%s), because of optim.fallback=true", why)
        paged = False
    return AdamW(params, lr=lr, weight_decay=weight_decay, betas=tuple(betas), optim_bits=bits, is_paged=paged)
