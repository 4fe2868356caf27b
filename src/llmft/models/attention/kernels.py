"""How a forward pass is computed: attention by length, variable-length attention, the LM head on labelled positions only.

The one place that chooses a kernel; none of them changes loss or gradient beyond rounding. Another kernel is a file next to
``varlen.py`` (a CPU's), ``flash.py`` and ``flex.py`` (a GPU's), and a branch of ``Kernels.enabled``.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch

from llmft.config.schema import TrainConfig
from llmft.models.attention import flash, flex, shared_prefix
from llmft.models.attention.packing import lengths
from llmft.models.attention.varlen import EAGER_UP_TO, NAME, supports_varlen, varlen_attention
from llmft.models.backbone.special_ids import part_configs
from llmft.models.last_layer import LastLayer, at_positions
from llmft.models.loss import Positions, head_at_positions
from llmft.utils.modules import dropouts

log = logging.getLogger(__name__)

SharedPrefix = Literal["exact", "always", "off"]


@dataclass
class Kernels:
    """The kernels of a config, and the results of the checks on the model.

    Attributes:
        plain: Compute everything as transformers does: the head at every position, padding masked (``performance=plain``).
        by_length: Eager attention for short sequences, sdpa for long ones (``model.attention=by_length``).
        varlen: Unpad batches and attend per example, if model and device can (``model.padding=skipped``).
        flash: Attend per example with FlashAttention on a GPU (``model.attention=flash``).
        flex: Attend per example with torch's flex attention on a GPU (``model.attention=flex``).
        shared_prefix: Compute the common prefixes of an unpadded batch once: ``exact``, not in train mode with dropout, where
            each example has its own dropout mask; ``always``, with one mask for all; or ``off`` (``model.shared_prefix``).
        packing_is_equivalent: Result of a check: whether the examples of an unpadded sequence have the same logits as one by
            one; None until a batch was compared.
        sharing_is_equivalent: Result of a check: whether examples have the same logits with a shared prefix; None until a
            batch was compared.
        dropout: Result of a check: what drops out in train mode, ``name=rate``, or nothing; None until it was looked for.
        head_is_last: Result of a check: whether the logits are the output of the LM head, with nothing after it; None until a
            batch was compared.
        last_layer: What the last layer need not compute for positions without a loss; None until it was looked for.
        last_layer_is_equivalent: Result of a check: whether the logits are the same without it; None until a batch was
            compared.
        liger: Compute RMSNorm and gated MLPs with Liger's kernels where gradients are computed (``model.liger``).
        liger_is_equivalent: Result of a check: whether the model has the same logits with them; None until a batch was
            compared.
        compile: Run each layer compiled by ``torch.compile`` where it is trained (``model.compile``).
        compiled_is_equivalent: Result of a check: whether compiled layers have the same outputs and gradients; None until a
            batch was compared.
    """

    plain: bool = False
    by_length: bool = False
    varlen: bool = False
    flash: bool = False
    flex: bool = False
    shared_prefix: SharedPrefix = "off"
    packing_is_equivalent: bool | None = None
    sharing_is_equivalent: bool | None = None
    dropout: str | None = None
    head_is_last: bool | None = None
    last_layer: LastLayer | None = None
    last_layer_is_equivalent: bool | None = None
    liger: bool = False
    liger_is_equivalent: bool | None = None
    compile: bool = False
    compiled_is_equivalent: bool | None = None

    @classmethod
    def from_config(cls, cfg: TrainConfig) -> "Kernels":
        """The kernels of a training, whose ``auto`` values are resolved.

        Args:
            cfg: The run's config.
        """
        return cls(
            plain=cfg.performance == "plain",
            by_length=cfg.model.attention == "by_length",
            varlen=cfg.model.padding == "skipped",
            flash=cfg.model.attention == "flash",
            flex=cfg.model.attention == "flex",
            shared_prefix="off" if cfg.model.shared_prefix == "auto" else cfg.model.shared_prefix,
            liger=cfg.model.liger is True,
            compile=cfg.model.compile,
        )

    def can_unpad(self, model: Any, batch: dict[str, Any], longest: int) -> bool:
        """Whether the examples of a batch can attend with varlen attention.

        Args:
            model: A transformers or peft model.
            batch: As ``collate.training_batch`` makes it.
            longest: Tokens of its longest example.
        """
        if self.attends_by_lengths(model, batch):
            return True
        return self._unpads_on_cpu(batch) and supports_varlen(model.config, longest)

    def attends_by_lengths(self, model: Any, batch: dict[str, Any]) -> bool:
        """Whether the examples of a batch attend by their lengths, with FlashAttention or flex attention, once it is flat.

        Args:
            model: A transformers or peft model, on the device that computes.
            batch: As ``collate.training_batch`` makes it.
        """
        if not self._unpads or "layout" not in batch:
            return False
        return (self.flash and flash.can_attend(model)) or (self.flex and flex.can_attend(model))

    @property
    def _unpads(self) -> bool:
        return self.varlen and self.packing_is_equivalent is not False

    def _unpads_on_cpu(self, batch: dict[str, Any]) -> bool:
        return self._unpads and batch["input_ids"].device.type == "cpu"

    def can_share(self, model: Any) -> bool:
        """Whether the examples of an unpadded batch may share common prefixes.

        Args:
            model: A transformers or peft model.
        """
        if self.shared_prefix == "off" or self.sharing_is_equivalent is False or model.config.is_encoder_decoder:
            return False
        return self.shared_prefix == "always" or not model.training or not self._drops(model)

    def _drops(self, model: Any) -> bool:
        if self.dropout is None:  # a large model has a thousand modules
            self.dropout = next((f"{name}={rate:g}" for name, rate in dropouts(model).items()), "")
            if self.dropout:
                log.info(
                    "shared prefixes: in validation only, because each example has its own dropout mask (%s)",
                    self.dropout,
                )
        return bool(self.dropout)

    def uses_varlen(self, model: Any, batch: dict[str, Any]) -> bool:
        """Whether a packed batch runs with varlen attention; without it, a packed batch needs positions or block masks."""
        if "flat" in batch:
            return True
        if "rows" not in batch or not self._unpads_on_cpu(batch):  # before the lengths, which a GPU is waited for
            return False
        return self.can_unpad(model, batch, max(map(max, lengths(batch["rows"]))))

    @contextmanager
    def enabled(self, model: Any, batch: dict[str, Any], chosen: Positions, *, varlen: bool) -> Iterator[None]:
        """Run a forward pass with these kernels; the model is left as it was.

        Args:
            model: A transformers or peft model.
            batch: As ``collate.training_batch`` makes it.
            chosen: Positions whose logits are needed.
            varlen: From ``uses_varlen``.
        """
        with (
            nullcontext() if self.plain else head_at_positions(model, chosen),
            at_positions(
                self.last_layer.modules(chosen) if self.last_layer and self.last_layer_is_equivalent else [], chosen
            ),
            self._varlen_attention(model, batch) if varlen else self._attention_by_length(model, batch),
        ):
            yield

    def last_layer_parts(self, model: Any) -> list[torch.nn.Module]:
        """Modules of the last layer that may leave out positions, on a CPU or in an estimate.

        Args:
            model: A transformers or peft model.
        """
        # hooks that are new for each batch would be compiled with it
        compiles = self.compile and self.compiled_is_equivalent is not False
        wanted = not (self.plain or compiles or self.last_layer_is_equivalent is False)
        if not wanted or model.device.type not in ("cpu", "meta"):
            return []
        self.last_layer = self.last_layer or LastLayer(model)
        return [part.module for part in self.last_layer.parts]

    def chunked_head(self, model: Any) -> torch.nn.Linear | None:
        """The LM head if its loss can be computed in chunks, without all logits.

        Not one with an adapter, in 4 bits or sharded, nor where the model scales or caps its logits after the head.
        """
        head = model.get_output_embeddings()
        is_plain = type(head) is torch.nn.Linear and type(head.weight) is torch.nn.Parameter
        # while logits are small, a soft cap changes them by less than the comparison of the first batch sees
        capped = any(getattr(part, "final_logit_softcapping", None) for part in part_configs(model.config))
        return head if is_plain and not capped and not self.plain and self.head_is_last is not False else None

    def _varlen_attention(self, model: Any, batch: dict[str, Any]) -> Any:
        if "flat" in batch:
            (flex if self.flex else flash).install(model)
            return nullcontext()
        if "segments" in batch:
            return _attention(model, shared_prefix.NAME, shared_prefix.shared_prefix_attention(batch["segments"]))
        sources = batch["rows"] if model.config.is_encoder_decoder else None
        return _attention(model, NAME, varlen_attention(model, batch["label_rows"], sources))

    def _attention_by_length(self, model: Any, batch: dict[str, Any]) -> Any:
        longest = max(batch["input_ids"].shape[1], batch["labels"].shape[1])
        eager = self.by_length and longest <= EAGER_UP_TO
        return _attention(model, "eager" if eager else model.config._attn_implementation, nullcontext())


@contextmanager
def _attention(model: Any, name: str, context: Any) -> Iterator[None]:
    """Switch the attention implementation for a forward pass, inside a context that it needs."""
    before = model.config._attn_implementation
    with context:
        if name != before:
            model.set_attn_implementation(name)
        try:
            yield
        finally:
            if name != before:  # generation would use it from then on
                model.set_attn_implementation(before)
