"""Batches that a thread makes in advance: the same ones, errors in their place, and nothing left running."""

import threading
from typing import Any

import pytest
import torch

from llmft.data.batching.prefetch import PREFETCHED, PrefetchingLoader, prefetched


def names() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("llmft-batches")]


@pytest.mark.parametrize("count", [0, 1, 5])
def test_the_same_batches_in_order(count):
    assert list(prefetched(range(count))) == list(range(count))


def test_batches_are_made_before_they_are_asked_for():
    made: list[int] = []
    batches = prefetched(made.append(number) or number for number in range(9))
    assert next(batches) == 0
    deadline = threading.Event()
    while len(made) < 1 + PREFETCHED:  # the thread runs while this one waits
        deadline.wait(0.001)
    assert made == [0, 1, 2]


def test_an_error_is_raised_in_the_place_of_its_batch():
    def broken() -> Any:
        yield 1
        raise ValueError("row 2")

    batches = prefetched(broken())
    assert next(batches) == 1
    with pytest.raises(ValueError, match="row 2"):
        next(batches)


def test_an_abandoned_epoch_leaves_no_thread():
    batches = prefetched(range(1000))
    next(batches)
    assert names()
    batches.close()  # pyright: ignore[reportAttributeAccessIssue]
    for thread in threading.enumerate():
        if thread.name.startswith("llmft-batches"):
            thread.join()
    assert not names()


def test_a_prefetching_loader_gives_the_batches_of_the_loader():
    loader = PrefetchingLoader(torch.arange(6), batch_size=2)  # pyright: ignore[reportArgumentType]
    assert len(loader) == 3
    assert [batch.tolist() for batch in loader] == [[0, 1], [2, 3], [4, 5]]
    assert [batch.tolist() for batch in loader] == [[0, 1], [2, 3], [4, 5]]
