"""Which parameters of a backbone are trained: all, the LM head, gradually more blocks, or LoRA matrices."""

import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

from llmft.config.schema.peft import Lora, Peft, Unfreeze
from llmft.models.backbone.quantization import numel
from llmft.models.peft import lora
from llmft.models.peft.layer_groups import fixed_positions, upper
from llmft.utils.errors import UserError
from llmft.utils.text import one_line

log = logging.getLogger(__name__)

# In checkpoints the model is a submodule of the LightningModule.
PREFIX = "model."


def adapt(model: Any, peft: Peft, auto_targets: list[str]) -> Any:
    """Make exactly those parameters trainable that the ``peft`` group configures, adding LoRA matrices if it does.

    Args:
        model: A transformers model.
        peft: The config of the peft group; ``method`` is ``none``, ``lora``, ``head`` or ``unfreeze``.
        auto_targets: The layers that the backbone's config names, for ``peft.targets=auto``.

    Raises:
        UserError: A name in ``peft.targets`` matches no layer, or ``peft.adapter`` does not fit.
    """
    if isinstance(peft, Lora):
        return lora.attach(model, peft, auto_targets)
    if peft.method == "head":
        return _train_head(model)
    model.requires_grad_(True)  # unfreeze: its callback freezes the blocks that are not due yet
    for parameter in fixed_positions(model):
        parameter.requires_grad_(False)
    return model


def is_adapter(peft: Peft) -> bool:
    """Whether an adapter is trained, and the weights of the backbone stay frozen."""
    return peft.method == "lora"


def parameter_counts(model: Any, peft: Peft | None = None) -> dict[str, int]:
    """Total and trainable parameters, tied ones counted once; with gradual unfreezing also those trained at first."""
    parameters = list(model.parameters())
    counts = {
        "total": sum(map(numel, parameters)),
        "trainable": sum(numel(p) for p in parameters if p.requires_grad),
    }
    if isinstance(peft, Unfreeze):
        counts["trainable_at_first"] = sum(map(numel, upper(model, peft.schedule[0][1])))
    return counts


def trainable_names(model: Any) -> set[str]:
    """Names of the trainable parameters, as checkpoints have them (``model.*``)."""
    return {PREFIX + name for name, parameter in model.named_parameters() if parameter.requires_grad}


def check_names(found: Collection[str], wanted: Collection[str]) -> None:
    """Refuse weights that are not exactly the trainable parameters.

    Raises:
        UserError: Names are missing or unknown.
    """
    missing, unknown = sorted(set(wanted) - set(found))[:3], sorted(set(found) - set(wanted))[:3]
    if missing or unknown:
        raise UserError(f"checkpoint does not fit this model and peft: missing {missing}, unknown {unknown}")


def load_weights(model: Any, weights: Mapping[str, Any]) -> None:
    """Load all trainable parameters, by their names in a checkpoint (``model.*``).

    Raises:
        UserError: Names are missing or unknown, or a shape differs.
    """
    check_names(weights, trainable_names(model))
    try:
        model.load_state_dict({name.removeprefix(PREFIX): value for name, value in weights.items()}, strict=False)
    except RuntimeError as error:
        raise UserError(f"weights do not fit this model and peft: {one_line(error)}") from None


def _train_head(model: Any) -> Any:
    head = model.requires_grad_(False).get_output_embeddings().requires_grad_(True)
    if head.weight is model.get_input_embeddings().weight:
        log.info("peft head: the head of this model is tied to its input embeddings, so both are trained")
    return model


@contextmanager
def base_of(model: Any) -> Iterator[None]:
    """The base model: the same weights in memory, with the adapter disabled."""
    with model.disable_adapter() if has_adapter(model) else nullcontext():
        yield


def has_adapter(model: Any) -> bool:
    """Whether the model has an adapter, which can be disabled."""
    return hasattr(model, "disable_adapter")
