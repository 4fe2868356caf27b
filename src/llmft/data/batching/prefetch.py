"""Prefetching: batches are made and pinned in a thread while the device computes the ones before."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch.utils.data import DataLoader

PREFETCHED = 2  # batches that are ready before they are asked for


class PrefetchingLoader(DataLoader[Any]):
    """A loader without worker processes whose batches a thread makes in advance, in the same order.

    The host spends most of an optimizer step waiting for the GPU, and the thread has the interpreter for itself then; unlike
    a worker process it needs no copy of the rows. A position in the epoch is counted where batches are used, not here.
    """

    def __iter__(self) -> Iterator[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Batches of an epoch."""
        return prefetched(super().__iter__())


def prefetched(batches: Iterable[Any]) -> Iterator[Any]:
    """The same items, up to ``PREFETCHED`` of them before they are asked for; an error is raised at the place of its item."""
    iterator, end = iter(batches), object()
    device = torch.cuda.current_device() if torch.cuda.is_available() else -1  # -1 sets none
    # pinned memory belongs to a device: in a new thread that would be the first GPU, not that of this rank
    pool = ThreadPoolExecutor(1, "llmft-batches", torch.cuda.set_device, (device,))
    try:
        ready = deque(pool.submit(next, iterator, end) for _ in range(PREFETCHED))
        while (batch := ready.popleft().result()) is not end:
            ready.append(pool.submit(next, iterator, end))
            yield batch
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
