"""A model on the meta device, and the bytes of its parts in a training."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from hydra.utils import instantiate
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from llmft.config.auto_values import PLAIN
from llmft.config.schema import TrainConfig
from llmft.config.schema.peft import Lora
from llmft.estimate.memory_tracker import MemoryTracker, fused_attention, offload_recomputed
from llmft.estimate.meta_autocast import meta_autocast, quantized_linear
from llmft.models import distillation
from llmft.models.attention.kernels import Kernels
from llmft.models.backbone import load
from llmft.models.backbone.open import Backbone
from llmft.models.chunked_head import meta_stands_for
from llmft.models.fsdp import mixed_precision, sharded_layers
from llmft.models.peft import trainable
from llmft.utils import flash, flex
from llmft.utils.device import autocast_dtype, runs_on_gpu

# Bytes of a quantized weight with the scale of its block of 64 (NF4: double quantization, Dettmers et al. 2023, section 3).
BYTES_PER_WEIGHT = {"nf4": 0.5 + 1 / 64 + 4 / (64 * 256), "fp4": 0.5 + 4 / 64, "int8": 1.0}
# AdamW of bitsandbytes: 8 bits a moment, with a float32 scale for each block of 256, from 4,096 weights on; tensors of at least
# 100,000 weights are paged.
SMALL, BLOCK, PAGED = 4096, 256, 100_000


class MetaModel:
    """A model on the meta device, and the memory of its parts.

    Args:
        cfg: A training config.
        backbone: The backbone of the config.
    """

    def __init__(self, cfg: TrainConfig, backbone: Backbone) -> None:
        self.cfg = cfg
        self.on_gpu = runs_on_gpu(cfg.trainer)
        config, auto_class = backbone.config, backbone.family.auto_class
        options = {
            "dtype": load.dtype_of(cfg.model),
            "attn_implementation": load.attention_of(cfg.model, backbone.config),
        }
        with torch.device("meta"):
            model = auto_class.from_config(config, **options).train()
            load.recompute_activations(model, cfg.model)
            if cfg.model.activation_offload:
                offload_recomputed(model)
            self.model = trainable.adapt(model, cfg.peft, cfg.model.lora_targets).to("meta")
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.quantized = self._quantized()
        self.counts = trainable.parameter_counts(self.model)
        by_flash, by_flex = (
            cfg.model.attention == name and package.unfit(config) is None
            for name, package in (("flash", flash), ("flex", flex))
        )
        by_example = by_flash or by_flex
        kernels = Kernels(varlen=by_example, flash=by_flash, flex=by_flex, packing_is_equivalent=by_example or None)
        if self.on_gpu:  # where the last layer computes all positions
            kernels.last_layer_is_equivalent = False
        self.forward = backbone.family(self.model, kernels)
        self.teacher = _teacher(cfg)

    def _quantized(self) -> list[Tensor]:
        """The weights that ``peft.quantise`` quantizes: all linear layers but the head and the adapter."""
        head = self.model.get_output_embeddings()
        return [
            module.weight
            for name, module in self.model.named_modules()
            if self.cfg.peft.quantise
            and isinstance(module, (nn.Linear, Conv1D))
            and module is not head
            and "lora_" not in name
        ]

    def weights(self) -> int:
        """Bytes of all weights and buffers, including a teacher's."""
        return self.teacher + self.stored((*self.model.parameters(), *self.model.buffers()))

    def stored(self, tensors: Iterable[Tensor]) -> int:
        """Bytes of weights and buffers as they are held in memory, quantized or not, shared ones counted once."""
        quantized, each = {id(weight) for weight in self.quantized}, {id(t): t for t in tensors}
        size = BYTES_PER_WEIGHT.get(self.cfg.peft.quantise or "", 0.0)
        return math.ceil(sum(t.numel() * (size if key in quantized else t.element_size()) for key, t in each.items()))

    def gathered(self) -> int:
        """Bytes of the weights, and their gradients, that FSDP2 holds complete at a time, besides each process's shards.

        These are two layers (one computes, the next is gathered) and all that is in no layer, such as embeddings and head, and
        in the backward pass the gradients of a layer in the dtype of the computation and in float32, in which they are reduced.
        """
        mixed = mixed_precision(self.cfg.trainer.precision).param_dtype
        layers = [list(layer.parameters()) for layer in sharded_layers(self.model)]
        inside = {id(p) for layer in layers for p in layer}
        rest = [p for p in self.model.parameters() if id(p) not in inside]

        def size(weights: Iterable[Tensor], copies: int = 1) -> int:
            gathered, each = self.stored(weights), [p for p in weights if p.requires_grad]
            cast = mixed.itemsize / 4 if mixed and not self.quantized else 1
            return int(copies * cast * gathered) + int((cast + 1) * sum(p.numel() * p.element_size() for p in each))

        return size(rest) + max((size(layer, copies=2) for layer in layers), default=0)

    def converted(self) -> int:
        """Bytes that the weights grow by while an evaluation, or a sample, converts them to float32."""
        if "float32" not in (self.cfg.evaluate.dtype, self.cfg.generation.dtype):
            return 0
        each = {id(t): t for t in (*self.model.parameters(), *self.model.buffers()) if t.dtype == torch.bfloat16}
        return sum(t.numel() * t.element_size() for t in each.values())

    def gradients(self) -> int:
        """Bytes of the gradients of the trainable parameters."""
        return sum(p.numel() * p.element_size() for p in self.trained)

    def optimizer(self) -> tuple[int, int]:
        """Bytes of the optimizer states, and of temporary tensors in an update."""
        if self.cfg.optim.target.endswith(".bnb_adamw"):
            return sum(self._bitsandbytes(p.numel()) for p in self.trained), 0
        optimizer = instantiate(self.cfg.optim.node())([nn.Parameter(torch.empty_like(p)) for p in self.trained])
        held = [p for group in optimizer.param_groups for p in group["params"]]
        for p in held:
            p.grad = torch.empty_like(p)
        fused = any(group.get("fused") for group in optimizer.param_groups)
        for group in optimizer.param_groups:
            if group.get("fused"):  # needs no temporary tensors, and does not support meta tensors
                group |= {"fused": False, "foreach": False}
            elif group.get("foreach", False) is None:  # torch's choice by device
                group["foreach"] = self.on_gpu
        with MemoryTracker(*held, *(p.grad for p in held if p.grad is not None)) as ledger:
            optimizer.step()
        states = [t for state in optimizer.state.values() for t in state.values() if isinstance(t, Tensor)]
        size = sum(t.numel() * t.element_size() for t in states)
        return size, 0 if fused else max(0, ledger.peak - size)

    def _bitsandbytes(self, weights: int) -> int:
        """Bytes of both moments of a tensor, on the device; what is paged may all be in CPU memory."""
        optim = self.cfg.optim
        if optim.paged and self.on_gpu and weights >= PAGED:
            return 0
        return 8 * weights if optim.bits == 32 or weights < SMALL else 2 * (weights + 4 * math.ceil(weights / BLOCK))

    def activations(self, batch: dict[str, Any]) -> int:
        """Peak bytes of the forward and backward pass of a batch, without weights and gradients.

        Args:
            batch: As ``collate.training_batch`` makes it.
        """
        return max(self.activations_by_pass(batch))

    def activations_by_pass(self, batch: dict[str, Any]) -> tuple[int, int]:
        """Peak bytes of the forward pass, and of the backward pass; as ``activations``."""
        mixed = autocast_dtype(self.cfg.trainer.precision)
        # causal models get no padding mask, only a block mask for packed sequences
        masked = "rows" in batch or self.model.config.is_encoder_decoder or self.forward.kernels.plain
        eager = self.cfg.model.attention == "eager"
        with self._prepared(mixed) as known, nullcontext() if eager else fused_attention(on_gpu=self.on_gpu):
            autocast, tracker, device = (
                meta_autocast(mixed, self.trained, on_gpu=self.on_gpu),
                MemoryTracker(*known, masked=masked),
                meta_stands_for("cuda" if self.on_gpu else "cpu"),
            )
            with device, autocast as casts, quantized_linear(self.quantized, self._layer_dtype), tracker as ledger:
                total, _ = self.forward.loss_sum(batch)
                casts.end_forward()
                forward = ledger.restart_peak()
                total.backward()
        dequantized = self._dequantized(mixed)
        return forward + dequantized, ledger.peak + dequantized

    @contextmanager
    def _prepared(self, mixed: torch.dtype | None) -> Iterator[list[Tensor]]:
        """Weights have the dtype that a layer sees, and gradients exist; yields all tensors that are no activation."""
        gathered = mixed_precision(self.cfg.trainer.precision).param_dtype if self._is_sharded else None
        kept = {p: p.data for p in self.model.parameters()}
        dtypes = {id(p): mixed or self._layer_dtype for p in self.quantized}
        for p in kept:
            p.data = p.data.to(dtypes.get(id(p), gathered or p.dtype))
        for p in self.trained:
            p.grad = torch.empty_like(p)
        yield [*kept, *self.model.buffers(), *(p.grad for p in self.trained if p.grad is not None)]
        for p, data in kept.items():
            p.data, p.grad = data, None

    @property
    def _is_sharded(self) -> bool:
        return self.cfg.trainer.strategy == "fsdp"

    @property
    def _layer_dtype(self) -> torch.dtype:
        """``peft.compute_dtype``; ``auto``, which only a training resolves, is float32."""
        peft = self.cfg.peft
        name = peft.compute_dtype if isinstance(peft, Lora) else "auto"
        return getattr(torch, PLAIN["peft.compute_dtype"] if name == "auto" else name)

    def _dequantized(self, mixed: torch.dtype | None) -> int:
        """Bytes of the largest quantized weight, dequantized: one at a time."""
        return max((p.numel() for p in self.quantized), default=0) * (mixed or self._layer_dtype).itemsize


def _teacher(cfg: TrainConfig) -> int:
    """Bytes of the teacher's weights; 0 without distillation."""
    if not cfg.peft.distill_from:
        return 0
    backbone = Backbone(distillation.config_of(cfg))
    config, auto_class = backbone.config, backbone.family.auto_class
    with torch.device("meta"):
        model = auto_class.from_config(config, dtype=load.dtype_of(backbone.model))
    return sum(p.numel() * p.element_size() for p in model.parameters())
