"""Faults of llmft to plant: each must be caught by the assert that looks for it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import torch

from llmft.generation import decoder
from llmft.models import causal, dtype
from llmft.models.forward import Forward
from llmft.training import fit


def positions_on_the_cpu() -> AbstractContextManager[Any]:
    """Packed position ids are made on the CPU, as if ``device=`` had been forgotten."""
    right = causal.positions_in_rows
    stack = ExitStack()
    stack.enter_context(patch.object(causal, "positions_in_rows", lambda rows: right(rows.cpu())))
    stack.enter_context(patch.object(causal.CausalForward, "device", "cpu"))
    return stack


def loss_is_read() -> AbstractContextManager[Any]:
    """The host reads the loss of each batch."""
    right = Forward.loss_sum

    def loss_sum(self: Any, batch: Any) -> Any:
        total, tokens = right(self, batch)
        total.item()
        return total, tokens

    return patch.object(Forward, "loss_sum", loss_sum)


def sum_in_any_order() -> AbstractContextManager[Any]:
    """The loss of each batch goes through an operation that CUDA has no deterministic form of."""
    right = Forward.loss_sum

    def loss_sum(self: Any, batch: Any) -> Any:
        total, tokens = right(self, batch)
        return total.reshape(1).cumsum(0)[0], tokens

    return patch.object(Forward, "loss_sum", loss_sum)


def products_in_float32() -> AbstractContextManager[Any]:
    """The model computes without autocast."""
    right = Forward.forward_targets

    def forward_targets(self: Any, batch: Any) -> Any:
        with torch.autocast("cuda", enabled=False):
            return right(self, batch)

    return patch.object(Forward, "forward_targets", forward_targets)


def mask_for_rows() -> AbstractContextManager[Any]:
    """The model gets the mask of the padding, which no token attends to anyway."""
    right = causal.CausalForward.inputs

    def inputs(self: Any, batch: Any, **options: Any) -> Any:
        return right(self, batch, **options) | {"attention_mask": batch["attention_mask"]}

    return patch.object(causal.CausalForward, "inputs", inputs)


def answers_on_the_cpu() -> AbstractContextManager[Any]:
    """The answers of the end table are generated where Lightning left the model."""
    return patch.object(fit, "on_device", lambda model, device: nullcontext())  # noqa: ARG005


def answers_in_float32() -> AbstractContextManager[Any]:
    """Answers are computed without the autocast of the training."""
    stack = ExitStack()
    for module in (decoder, dtype):
        stack.enter_context(patch.object(module, "answering_precision", lambda *_: "32-true"))
    return stack


FAULTS: Mapping[str, Callable[[], AbstractContextManager[Any]]] = {
    one.__name__: one
    for one in (
        positions_on_the_cpu,
        loss_is_read,
        sum_in_any_order,
        products_in_float32,
        mask_for_rows,
        answers_on_the_cpu,
        answers_in_float32,
    )
}


@contextmanager
def planted(names: list[str]) -> Iterator[None]:
    """With these faults."""
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(FAULTS[name]())
        yield
