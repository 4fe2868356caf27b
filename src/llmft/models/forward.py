"""A model that computes its loss: batch -> sum of the token losses and their number, for either family.

Shapes: B sequences, S tokens in a sequence, T labels in a sequence (for a causal model T = S), N supervised labels, V the
vocabulary.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from llmft.data.tokenization.codec import EncodedExample
from llmft.models import first_batch
from llmft.models.attention.flat import flatten
from llmft.models.attention.kernels import Kernels
from llmft.models.attention.known_masks import known_masks
from llmft.models.attention.packing import is_full, unpad
from llmft.models.attention.prefix_tree import share_prefixes
from llmft.models.chunked_head import (
    HeadInput,
    capture_hidden,
    chunked_cross_entropy,
    chunked_cross_entropy_sum,
    head_bias,
    same_logits,
)
from llmft.models.loss import Positions, TokenLoss, supervised, token_loss_sum


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
        return chosen.select(self.target_weights(batch)).to(self.device) if "weights" in batch else None

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
        logits = chosen.select(logits) if self.kernels.plain else logits
        # an estimate has its batch on the CPU and its model on the meta device
        return logits, chosen.select(targets).to(logits.device), chosen

    def loss_sum(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Cross-entropy summed over supervised tokens (mixed with the teacher's divergence in train mode).

        Args:
            batch: As ``collate.training_batch`` makes it, on the device of the model.

        Returns:
            The sum in nats, float32 scalar with gradient, and the number of tokens, int64 scalar on the CPU. If the batch has
            weights: the sum of weight times loss, and the sum of the weights, float32 scalar on its device.
        """
        first_batch.install_liger(self, batch)
        batch = batch if self.teacher else self.unpad_if_faster(batch)
        first_batch.install_compiled(self, batch)
        if self.teacher:
            return self._distilled_loss_sum(self.teacher, batch)
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
            self.kernels.head_is_last = logits.is_meta or same_logits(logits, expected)
            if not self.kernels.head_is_last:
                return None
        return HeadInput((seen.hidden, head.weight, bias), targets, chosen)

    def unpad_if_faster(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch as one sequence without padding and repeated prefixes if that is faster and computes the same.

        Returns:
            Else the batch itself. Supervised positions keep their order.
        """
        first_batch.verify_last_layer(self, batch)
        if (
            "segments" in batch
            or "flat" in batch
            or not self.kernels.can_unpad(self.model, batch, batch["input_ids"].shape[1])
        ):
            return batch
        first_batch.verify_packing(self, batch)
        if not self.kernels.packing_is_equivalent:
            return batch
        if self.kernels.attends_by_lengths(self.model, batch):
            return flatten(batch, batch["layout"])
        masks = self.tokens(batch)
        flat = unpad(batch, *masks)
        return self._shared(flat) or (batch if is_full(*masks) else flat)

    def _shared(self, flat: dict[str, Any]) -> dict[str, Any] | None:
        """A flat batch with shared prefixes; None if that saves too little, or does not compute the same."""
        if not self.kernels.can_share(self.model) or (shared := share_prefixes(flat)) is None:
            return None
        first_batch.verify_sharing(self, flat, shared["segments"])
        return shared if self.kernels.sharing_is_equivalent else None

    def check_packing(self, examples: Sequence[EncodedExample], pad_id: int) -> float | None:
        """Compare the logits of a packed sequence with those of its examples, one at a time.

        Returns:
            The largest difference, relative to the largest logit; None if the model is broken, so that its logits are not
            finite and say nothing about packing. The NaN guard halts such a training and names the module.

        Raises:
            UserError: The examples attend to each other, or the model cannot run a packed sequence.
        """
        return first_batch.check_packing(self, examples, pad_id)
