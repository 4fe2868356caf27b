"""Comparisons with the first batch: whether the model computes the same logits in a faster way, before it is taken.

The results are kept in ``Kernels``. Shapes: B sequences, S tokens in a sequence, T labels in a sequence, N supervised labels, V
the vocabulary.
"""

import logging
import time
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from llmft.data.batching.collate import training_batch, without_layout
from llmft.data.tokenization.codec import IGNORED, EncodedExample
from llmft.models import compiled, liger
from llmft.models.attention.flat import LENGTHS, flatten
from llmft.models.attention.kernels import Kernels
from llmft.models.attention.packing import LogitDifference, logit_difference, unpad
from llmft.models.attention.prefix_tree import Segment, alike, share_prefixes
from llmft.models.fsdp import agreed, is_fsdp
from llmft.models.last_layer import at_positions
from llmft.models.loss import Positions, supervised
from llmft.utils.device import to_device
from llmft.utils.errors import UserError
from llmft.utils.oom import is_out_of_memory
from llmft.utils.text import first_line

log = logging.getLogger(__name__)


class Compared(Protocol):
    """A ``models.forward.Forward``, as far as the comparisons use it."""

    model: Any
    kernels: Kernels

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        ...

    def targets(self, batch: dict[str, Any]) -> Tensor:
        """The target id of each position, [B, T]."""
        ...

    def positions(self, batch: dict[str, Any], targets: Tensor) -> Positions:
        """The positions that have a loss."""
        ...

    def tokens(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Masks of the ids, [B, S], and the labels, [B, T], that are not padding; bool."""
        ...

    def forward_targets(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor, Positions]:
        """Logits [N, V], their targets [N], and the positions of both."""
        ...


def verify_packing(forward: Compared, batch: dict[str, Any]) -> None:
    """Check with the first batch whether examples have the same logits in an unpadded sequence as one by one."""
    kernels = forward.kernels
    if not kernels.varlen or kernels.packing_is_equivalent is not None:
        return
    # the device picks the kernel
    first = to_device({name: value[:2] for name, value in without_layout(batch).items()}, forward.device)
    if not bool((first["labels"] >= 0).any()) and not _label_all(forward, first):
        return
    kernels.packing_is_equivalent = True  # for the comparison
    if kernels.attends_by_lengths(forward.model, batch):
        flat = flatten(first, {name: batch["layout"][name][:2] for name in LENGTHS})
    else:
        flat = unpad(first, *forward.tokens(first))
    kernels.packing_is_equivalent = agreed(forward.model, _is_equivalent(forward, flat, first, "padding is kept"))


def _label_all(forward: Compared, batch: dict[str, Any]) -> bool:
    """Give each token of a batch without labels a label if weights are sharded: all processes must call the modules alike.

    Returns:
        Whether it was done.
    """
    if not is_fsdp(forward.model):
        return False
    batch["labels"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORED)
    return True


def verify_sharing(forward: Compared, flat: dict[str, Any], segments: Sequence[Segment]) -> None:
    """Check with two examples of the first batch with a shared prefix whether they have the same logits as without.

    Args:
        forward: Whose ``kernels`` get the result.
        flat: The batch before sharing, [1, U].
        segments: Its tree.
    """
    kernels = forward.kernels
    if kernels.sharing_is_equivalent is None and (pair := alike(flat, segments)):
        kernels.sharing_is_equivalent = True  # for the comparison
        both = share_prefixes(pair, least=1, worth=0.0) or pair, pair
        kernels.sharing_is_equivalent = _is_equivalent(forward, *both, "prefixes are not shared")


def verify_last_layer(forward: Compared, batch: dict[str, Any]) -> None:
    """Check with an example of the first batch whether the last layer may leave out positions without a loss."""
    kernels = forward.kernels
    if "segments" in batch or "flat" in batch:
        return
    if kernels.last_layer_is_equivalent is not None or not (parts := kernels.last_layer_parts(forward.model)):
        return
    if forward.device.type == "meta":  # an estimate has no logits to compare
        kernels.last_layer_is_equivalent = True
        return
    targets = forward.targets(batch)
    if not (trained := supervised(targets).any(1).nonzero()[:1, 0].tolist()):
        return
    first = {name: value[trained] for name, value in batch.items() if isinstance(value, Tensor)}
    chosen = forward.positions(first, targets[trained])

    def logits(modules: list[torch.nn.Module]) -> Tensor:
        with at_positions(modules, chosen):
            return forward.forward_targets(first)[0]

    try:
        difference = logit_difference(forward.model, logits, [parts], [[]])
    except Exception as error:  # e.g. a module with further arguments
        if is_out_of_memory(error):
            raise
        log.debug("the last layer computes all positions (%s)", first_line(error))
        kernels.last_layer_is_equivalent = False
        return
    kernels.last_layer_is_equivalent = difference.is_small if difference.finite else None


def install_liger(forward: Compared, batch: dict[str, Any]) -> None:
    """Install Liger's kernels before the first training step, and compare the logits of an example with and without."""
    kernels = forward.kernels
    if not kernels.liger or kernels.liger_is_equivalent is not None or not torch.is_grad_enabled():
        return
    first = to_device({name: value[:1] for name, value in without_layout(batch).items()}, forward.device)
    try:
        found = liger.install(forward.model)
        kernels.liger_is_equivalent = bool(found) and _same_with_gradients(forward, first)
    except Exception as error:  # e.g. Triton finds no compiler, or another version of the package
        if is_out_of_memory(error):
            raise
        found, kernels.liger_is_equivalent = {}, False
        log.warning("Liger kernels: off, they do not run here (%s)", first_line(error))
    else:
        log.info("Liger kernels: %s", _liger_line(found, same=kernels.liger_is_equivalent))
    if not kernels.liger_is_equivalent:
        liger.uninstall(forward.model)


def install_compiled(forward: Compared, batch: dict[str, Any]) -> None:
    """Compile the layers before the first training step, and compare outputs and gradients of each with its own.

    Args:
        forward: In train mode, with gradients on; else, and in an estimate, nothing is done.
        batch: As the model gets it, unpadded or not.
    """
    kernels, model = forward.kernels, forward.model
    trains = model.training and torch.is_grad_enabled() and forward.device.type != "meta"
    if not kernels.compile or kernels.compiled_is_equivalent is not None or not trains:
        return
    kernels.compiled_is_equivalent, layers = False, compiled.layers_of(model)
    if not layers:
        log.warning("compile: off, %s has no repeated layers", type(model).__name__)
        return
    kinds, started = compiled.kinds_of(layers), time.monotonic()
    log.info("compile: %s; the first step waits for it, for seconds to minutes", kinds)
    try:
        found = compiled.differences(layers, lambda: forward.forward_targets(batch), model.dtype)
    except Exception as error:  # e.g. no compiler, or what torch.compile does not know
        if is_out_of_memory(error):
            raise
        log.warning("compile: off, torch.compile fails here (%s)", first_line(error))
        return
    kernels.compiled_is_equivalent = max(found, default=0.0) <= 1
    if not kernels.compiled_is_equivalent:
        log.warning(
            "compile: off, the compiled %s computes something else", type(layers[found.index(max(found))]).__name__
        )
        return
    compiled.install(layers)
    seconds = time.monotonic() - started
    log.info("compile: took %.0f s; outputs and gradients of all layers are the same", seconds)


def check_packing(forward: Compared, examples: Sequence[EncodedExample], pad_id: int) -> float | None:
    """As ``Forward.check_packing``, which calls this."""
    verify_packing(forward, training_batch([[example] for example in examples], pad_id))
    packed, *single = [training_batch(batch, pad_id) for batch in ([examples], *([[example]] for example in examples))]
    try:
        difference = _difference(forward, [packed], single)
    except Exception as error:  # an architecture with attention of its own (PEGASUS-X)
        if isinstance(error, UserError) or is_out_of_memory(error):
            raise
        reason = f"this model cannot run a packed sequence ({first_line(error)})"
        raise UserError(f"data.batching=packed: {reason}; use data.batching=tokens or grouped") from error
    if not difference.finite:
        return None
    if not difference.is_small:
        raise UserError(
            f"data.batching=packed: this model lets packed examples attend to each other (logits of {examples[0].place} and "
            f"{len(examples) - 1} more examples differ by {difference.value:.2g} of the largest, packed against single); "
            "use data.batching=tokens or grouped"
        )
    return difference.value


def _same_with_gradients(forward: Compared, batch: dict[str, Any]) -> bool:
    """Whether the logits are the same where gradients are computed, with Liger's kernels, and where not."""
    if not bool((batch["labels"] >= 0).any()):
        return True  # no logit to compare; each module was

    def logits(fused: bool) -> Tensor:
        with torch.set_grad_enabled(fused):
            return forward.forward_targets(batch)[0].detach()

    difference = logit_difference(forward.model, logits, [True], [False])
    return difference.is_small or not difference.finite


def _is_equivalent(forward: Compared, fast: dict[str, Any], batch: dict[str, Any], otherwise: str) -> bool | None:
    """Whether two layouts of the same examples have the same logits; None (undecided) with NaN weights."""
    try:
        difference = _difference(forward, [fast], [batch])
    except Exception as error:  # e.g. the model takes no position ids, or has only its own attention
        if is_out_of_memory(error):
            raise
        log.info("%s: the model cannot run unpadded sequences (%s)", otherwise, first_line(error))
        return False
    if not difference.finite:
        return None
    if not difference.is_small:
        log.info(
            "%s: examples of an unpadded sequence attend to each other (logits differ by %.2g of the largest)",
            otherwise,
            difference.value,
        )
    return difference.is_small


def _difference(forward: Compared, first: list[Any], second: list[Any]) -> LogitDifference:
    def logits(batch: dict[str, Any]) -> Tensor:
        batch = to_device(batch, forward.device)
        # as in training, where a packed batch is flattened too
        packed = "rows" in batch and "flat" not in batch and forward.kernels.attends_by_lengths(forward.model, batch)
        return forward.forward_targets(flatten(batch, batch["layout"]) if packed else batch)[0]

    return logit_difference(forward.model, logits, first, second)


def _liger_line(found: dict[str, int], *, same: bool) -> str:
    parts = ", ".join(f"{name} ({number} modules)" for name, number in found.items())
    if not found:
        return "off, none of the model's modules is an RMSNorm or a gated MLP that they compute"
    return f"{parts}, in training steps" if same else f"off, with {parts} the logits of the first example differ"
