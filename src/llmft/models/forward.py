"""A model that computes its loss: batch -> sum of the token losses and their number, for either family.

Shapes: B sequences, S tokens in a sequence, T labels in a sequence (for a causal model T = S), N supervised labels, V the
vocabulary.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from llmft.data.batching.collate import training_batch, without_layout
from llmft.data.tokenization.codec import EncodedExample
from llmft.models import liger
from llmft.models.attention.flat import LENGTHS, flatten
from llmft.models.attention.kernels import Kernels
from llmft.models.attention.known_masks import known_masks
from llmft.models.attention.packing import LogitDifference, is_full, logit_difference, unpad
from llmft.models.attention.prefix_tree import alike, share_prefixes
from llmft.models.last_layer import at_positions
from llmft.models.loss import (
    HeadInput,
    Positions,
    TokenLoss,
    capture_hidden,
    chunked_cross_entropy,
    chunked_cross_entropy_sum,
    head_bias,
    supervised,
    token_loss_sum,
)
from llmft.utils.device import to_device
from llmft.utils.errors import UserError
from llmft.utils.oom import is_out_of_memory
from llmft.utils.text import first_line

log = logging.getLogger(__name__)


class LossTerm(Protocol):
    """A second loss of the logits, mixed into that of the labels while the model is in train mode (``distillation``)."""

    divergence: TokenLoss

    def mixed(self, nats: Tensor, logits: Tensor, batch: dict[str, Any]) -> Tensor:
        """The total loss, a sum in nats, from that of the labels and the logits [N, V]."""
        ...


class Forward(ABC):
    """A transformers model with the forward pass of its family.

    Args:
        model: A transformers or peft model.
        kernels: How the forward pass is computed; None for the defaults.
        teacher: A teacher to learn from besides the labels, in train mode; None for none.

    Attributes:
        auto_class: The ``AutoModelFor...`` class of the family.
    """

    auto_class: ClassVar[Any]

    def __init__(self, model: Any, kernels: Kernels | None = None, teacher: LossTerm | None = None) -> None:
        self.model, self.kernels, self.teacher = model, kernels or Kernels(), teacher

    @abstractmethod
    def targets(self, batch: dict[str, Any]) -> Tensor:
        """The target id of each position, [B, T]; ``IGNORED`` at positions without a loss."""

    @abstractmethod
    def target_weights(self, batch: dict[str, Any]) -> Tensor:
        """``batch["weights"]``, aligned with ``targets``: [B, T]."""

    @abstractmethod
    def known_positions(self, layout: dict[str, Any]) -> Tensor:
        """The positions of ``targets`` that have a loss, [N], from ``collate.layout_of``."""

    def positions(self, batch: dict[str, Any], targets: Tensor) -> Positions:
        """The positions that have a loss: on a GPU, those that the batch came with, so that nothing waits for it.

        Args:
            batch: As ``collate.training_batch`` makes it; batches of other code may lack ``layout``.
            targets: Of the batch, [B, T].
        """
        labels = batch["labels"]
        # in-place changes of the labels after collation count as a version; on the CPU, looking costs nothing
        changed = not labels.is_inference() and labels._version > 0
        if "layout" not in batch or labels.device.type == "cpu" or changed:
            return Positions.of(supervised(targets))
        return Positions(self.known_positions(batch["layout"]), targets.shape)

    def weights(self, batch: dict[str, Any], chosen: Positions) -> Tensor | None:
        """Weights of the supervised tokens, [N]; None if the batch has none, so that each counts once.

        Args:
            batch: As ``collate.training_batch`` makes it.
            chosen: From ``forward_targets``.
        """
        return chosen.select(self.target_weights(batch)) if "weights" in batch else None

    @abstractmethod
    def inputs(self, batch: dict[str, Any], *, varlen: bool) -> dict[str, Any]:
        """The arguments of the model's forward pass.

        Args:
            batch: As ``collate.training_batch`` makes it, packed or not.
            varlen: Whether attention keeps the examples of a packed sequence apart, so that no mask has to.
        """

    @abstractmethod
    def tokens(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Masks of the ids, [B, S], and the labels, [B, T], that are not padding; bool."""

    def context(self, batch: dict[str, Any]) -> AbstractContextManager[None]:
        """What the model needs around its forward pass, besides its arguments."""
        return nullcontext()

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return self.model.device

    def forward_targets(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor, Positions]:
        """Run the model, and keep the logits of the supervised positions.

        Args:
            batch: As ``collate.training_batch`` makes it, on the device of the model.

        Returns:
            Logits [N, V], their targets [N], and the positions of both.
        """
        targets = self.targets(batch)
        chosen = self.positions(batch, targets)
        varlen = self.kernels.uses_varlen(self.model, batch)
        known = known_masks(batch, encoder_decoder=self.model.config.is_encoder_decoder)
        with self.kernels.enabled(self.model, batch, chosen, varlen=varlen), self.context(batch), known:
            logits = self.model(**self.inputs(batch, varlen=varlen), use_cache=False).logits
        return chosen.select(logits) if self.kernels.plain else logits, chosen.select(targets), chosen

    def loss_sum(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Cross-entropy summed over supervised tokens (mixed with the teacher's divergence in train mode).

        Args:
            batch: As ``collate.training_batch`` makes it, on the device of the model.

        Returns:
            The sum in nats, float32 scalar with gradient, and the number of tokens, int64 scalar on the CPU. If the batch has
            weights: the sum of weight times loss, and the sum of the weights, float32 scalar on its device.
        """
        self._fuse(batch)
        if self.teacher:
            return self._distilled_loss_sum(self.teacher, batch)
        batch = self.unpad_if_faster(batch)
        if before := self._before_head(batch):
            return chunked_cross_entropy_sum(*before.parts, before.targets, self.weights(batch, before.chosen))
        logits, targets, chosen = self.forward_targets(batch)
        return token_loss_sum(logits, targets, self.weights(batch, chosen))

    @torch.no_grad()
    def token_losses(self, batch: dict[str, Any]) -> Tensor:
        """Cross-entropy of each supervised token of the labels, unweighted, without gradient.

        Args:
            batch: As ``collate.training_batch`` makes it, on the device of the model.

        Returns:
            In nats, [N], float32, in the order of the examples and their tokens.
        """
        batch = self.unpad_if_faster(batch)
        if before := self._before_head(batch):
            return chunked_cross_entropy(*before.parts, before.targets)
        logits, targets, _ = self.forward_targets(batch)
        return torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")

    def _distilled_loss_sum(self, teacher: LossTerm, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        logits, targets, chosen = self.forward_targets(batch)
        total, tokens = token_loss_sum(logits, targets, self.weights(batch, chosen))
        return teacher.mixed(total, logits, batch) if self.model.training else total, tokens

    def _before_head(self, batch: dict[str, Any]) -> HeadInput | None:
        """Run the model up to its LM head; None if the loss cannot be computed from there in chunks."""
        if (head := self.kernels.chunked_head(self.model)) is None:
            return None
        with capture_hidden(self.model) as seen:
            logits, targets, chosen = self.forward_targets(batch)
        bias = head_bias(self.model, head)
        if self.kernels.head_is_last is None:  # compared once: a model may scale or cap its logits after the head
            expected = torch.nn.functional.linear(seen.hidden[:1], head.weight, bias)
            self.kernels.head_is_last = logits.is_meta or torch.allclose(
                logits.float(), expected.float(), rtol=1e-2, atol=1e-3, equal_nan=True
            )
            if not self.kernels.head_is_last:
                return None
        return HeadInput((seen.hidden, head.weight, bias), targets, chosen)

    def unpad_if_faster(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch as one sequence without padding and repeated prefixes if that is faster and computes the same.

        Returns:
            Else the batch itself. Supervised positions keep their order.
        """
        self._verify_last_layer(batch)
        if (
            "segments" in batch
            or "flat" in batch
            or not self.kernels.can_unpad(self.model, batch, batch["input_ids"].shape[1])
        ):
            return batch
        self._verify_packing(batch)
        if not self.kernels.packing_is_equivalent:
            return batch
        if self.kernels.uses_flash(self.model, batch):
            return flatten(batch, batch["layout"])
        masks = self.tokens(batch)
        flat = unpad(batch, *masks)
        return self._shared(flat) or (batch if is_full(*masks) else flat)

    def _shared(self, flat: dict[str, Any]) -> dict[str, Any] | None:
        """A flat batch with shared prefixes; None if that saves too little, or does not compute the same."""
        if not self.kernels.can_share(self.model) or (shared := share_prefixes(flat)) is None:
            return None
        if self.kernels.sharing_is_equivalent is None and (pair := alike(flat, shared["segments"])):
            self.kernels.sharing_is_equivalent = True  # for the comparison
            both = share_prefixes(pair, least=1, worth=0.0) or pair, pair
            self.kernels.sharing_is_equivalent = self._is_equivalent(*both, "prefixes are not shared")
        return shared if self.kernels.sharing_is_equivalent else None

    def _verify_packing(self, batch: dict[str, Any]) -> None:
        """Check with the first batch whether examples have the same logits in an unpadded sequence as one by one."""
        kernels = self.kernels
        if not kernels.varlen or kernels.packing_is_equivalent is not None:
            return
        # the device picks the kernel
        first = to_device({name: value[:2] for name, value in without_layout(batch).items()}, self.device)
        if not bool((first["labels"] >= 0).any()):
            return
        kernels.packing_is_equivalent = True  # for the comparison
        if kernels.uses_flash(self.model, batch):
            flat = flatten(first, {name: batch["layout"][name][:2] for name in LENGTHS})
        else:
            flat = unpad(first, *self.tokens(first))
        kernels.packing_is_equivalent = self._is_equivalent(flat, first, "padding is kept")

    def _verify_last_layer(self, batch: dict[str, Any]) -> None:
        """Check with an example of the first batch whether the last layer may leave out positions without a loss."""
        kernels = self.kernels
        if "segments" in batch or "flat" in batch:
            return
        if kernels.last_layer_is_equivalent is not None or not (parts := kernels.last_layer_parts(self.model)):
            return
        if self.device.type == "meta":  # an estimate has no logits to compare
            kernels.last_layer_is_equivalent = True
            return
        targets = self.targets(batch)
        if not (trained := supervised(targets).any(1).nonzero()[:1, 0].tolist()):
            return
        first = {name: value[trained] for name, value in batch.items() if isinstance(value, Tensor)}
        chosen = self.positions(first, targets[trained])

        def logits(modules: list[torch.nn.Module]) -> Tensor:
            with at_positions(modules, chosen):
                return self.forward_targets(first)[0]

        try:
            difference = logit_difference(self.model, logits, [parts], [[]])
        except Exception as error:  # e.g. a module with further arguments
            if is_out_of_memory(error):
                raise
            log.debug("the last layer computes all positions (%s)", first_line(error))
            kernels.last_layer_is_equivalent = False
            return
        kernels.last_layer_is_equivalent = difference.is_small if difference.finite else None

    def _fuse(self, batch: dict[str, Any]) -> None:
        """Install Liger's kernels before the first training step, and compare the logits of an example with and without."""
        kernels = self.kernels
        if not kernels.liger or kernels.liger_is_equivalent is not None or not torch.is_grad_enabled():
            return
        first = to_device({name: value[:1] for name, value in without_layout(batch).items()}, self.device)
        try:
            found = liger.install(self.model)
            kernels.liger_is_equivalent = bool(found) and self._same_with_gradients(first)
        except Exception as error:  # e.g. Triton finds no compiler, or another version of the package
            if is_out_of_memory(error):
                raise
            found, kernels.liger_is_equivalent = {}, False
            log.warning("Liger kernels: off, they do not run here (%s)", first_line(error))
        else:
            log.info("Liger kernels: %s", _liger_line(found, same=kernels.liger_is_equivalent))
        if not kernels.liger_is_equivalent:
            liger.uninstall(self.model)

    def _same_with_gradients(self, batch: dict[str, Any]) -> bool:
        """Whether the logits are the same where gradients are computed, with Liger's kernels, and where not."""
        if not bool((batch["labels"] >= 0).any()):
            return True  # no logit to compare; each module was

        def logits(fused: bool) -> Tensor:
            with torch.set_grad_enabled(fused):
                return self.forward_targets(batch)[0].detach()

        difference = logit_difference(self.model, logits, [True], [False])
        return difference.is_small or not difference.finite

    def _is_equivalent(self, fast: dict[str, Any], batch: dict[str, Any], otherwise: str) -> bool | None:
        """Whether two layouts of the same examples have the same logits; None (undecided) with NaN weights."""
        try:
            difference = self._difference([fast], [batch])
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

    def check_packing(self, examples: Sequence[EncodedExample], pad_id: int) -> float | None:
        """Compare the logits of a packed sequence with those of its examples, one at a time.

        Returns:
            The largest difference, relative to the largest logit; None if the model is broken, so that its logits are not
            finite and say nothing about packing. The NaN guard halts such a training and names the module.

        Raises:
            UserError: The examples attend to each other, or the model cannot run a packed sequence.
        """
        self._verify_packing(training_batch([[example] for example in examples], pad_id))
        packed, *single = [
            training_batch(batch, pad_id) for batch in ([examples], *([[example]] for example in examples))
        ]
        try:
            difference = self._difference([packed], single)
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

    def _difference(self, first: list[Any], second: list[Any]) -> LogitDifference:
        def logits(batch: dict[str, Any]) -> Tensor:
            batch = to_device(batch, self.device)
            # as in training, where a packed batch is flattened too
            packed = "rows" in batch and "flat" not in batch and self.kernels.uses_flash(self.model, batch)
            return self.forward_targets(flatten(batch, batch["layout"]) if packed else batch)[0]

        return logit_difference(self.model, logits, first, second)


def _liger_line(found: dict[str, int], *, same: bool) -> str:
    parts = ", ".join(f"{name} ({number} modules)" for name, number in found.items())
    if not found:
        return "off, none of the model's modules is an RMSNorm or a gated MLP that they compute"
    return f"{parts}, in training steps" if same else f"off, with {parts} the logits of the first example differ"
