"""Faults of llmft to plant: each must be caught by the assert that looks for it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch


@contextmanager
def positions_on_the_cpu() -> Iterator[None]:
    """Packed position ids are made on the CPU, as if ``device=`` had been forgotten."""
    from llmft.models import causal

    right = causal.positions_in_rows
    with (
        patch.object(causal, "positions_in_rows", lambda rows: right(rows.cpu())),
        patch.object(causal.CausalForward, "device", "cpu"),
    ):
        yield


FAULTS: Mapping[str, Callable[[], AbstractContextManager[Any]]] = {one.__name__: one for one in (positions_on_the_cpu,)}
