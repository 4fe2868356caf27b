"""What of a backbone is trained: all of it, its head, ever more of its blocks, or LoRA matrices beside it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from llmft.models.backbone.quantization import numel
from llmft.models.peft import lora
from llmft.models.peft.layer_groups import upper

log = logging.getLogger(__name__)


def adapt(model: Any, peft: Any, auto_targets: list[str]) -> Any:
    """The model with exactly the weights trainable that the ``peft`` group asks for.

    Args:
        model: A transformers model.
        peft: The config of the peft group; ``method`` is ``none``, ``lora``, ``head`` or ``unfreeze``.
        auto_targets: The backbone's own choice of layers, for ``peft.targets=auto``.

    Raises:
        UserError: A name in ``peft.targets`` matches no layer, or ``peft.adapter`` does not fit.
    """
    if peft.method == "lora":
        return lora.attach(model, peft, auto_targets)
    if peft.method == "head":
        return _head_alone(model)
    return model.requires_grad_(True)  # unfreeze: its callback freezes what is not due yet


def is_adapter(peft: Any) -> bool:
    """Whether what is trained stands beside the backbone's weights, and not in their place."""
    return peft.method == "lora"


def parameter_counts(model: Any, peft: Any = None) -> dict[str, int]:
    """Parameters in total and trainable, each shared one counted once; with gradual unfreezing also those trained at first."""
    parameters = list(model.parameters())
    counts = {
        "total": sum(map(numel, parameters)),
        "trainable": sum(numel(p) for p in parameters if p.requires_grad),
    }
    if peft and peft.method == "unfreeze":
        counts["trainable_at_first"] = sum(map(numel, upper(model, peft.schedule[0][1])))
    return counts


def _head_alone(model: Any) -> Any:
    head = model.requires_grad_(False).get_output_embeddings().requires_grad_(True)
    if head.weight is model.get_input_embeddings().weight:
        log.info("peft head: this model's head is its input embeddings too, so both are trained")
    return model


@contextmanager
def base_of(model: Any) -> Iterator[None]:
    """The model as it was before training: the same weights in memory, with the adapter switched off."""
    with model.disable_adapter() if has_adapter(model) else nullcontext():
        yield


def has_adapter(model: Any) -> bool:
    """Whether what was trained can be switched off."""
    return hasattr(model, "disable_adapter")
