"""Predict the memory of a training by part, from a model on the meta device."""

import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from torch import Tensor, nn

from llmft.config.schema import TrainConfig
from llmft.data.batching.collate import training_batch
from llmft.data.batching.sampler import Pack
from llmft.data.datamodule import InstructionDataModule
from llmft.estimate.memory_tracker import MemoryTracker, fused_attention
from llmft.models import distillation
from llmft.models.backbone import load, quantization
from llmft.models.backbone.open import Backbone
from llmft.models.peft import trainable
from llmft.utils.device import autocast_dtype, runs_on_gpu
from llmft.utils.memory import peak_memory_mib

# Bytes of a quantized weight with the scale of its block of 64 (NF4: double quantization, Dettmers et al. 2023, section 3).
BYTES_PER_WEIGHT = {"nf4": 0.5 + 1 / 64 + 4 / (64 * 256), "fp4": 0.5 + 4 / 64, "int8": 1.0}
MAX_EPOCHS_SCANNED = 3
# Fragmentation of the C library's malloc between tensors of many sizes: a quarter more and 64 MiB, fitted to the runs of
# benchmarks/estimate.py.
MALLOC_SHARE, MALLOC_BYTES = 1.25, 64 * 2**20
# Modules that a training imports later; they are imported here so that their memory counts.
LOADED_LATER = (
    *("torch._dynamo", "torch._inductor.config", "torch.utils.tensorboard", "lightning.pytorch", "peft", "networkx"),
    *("sacrebleu", "rouge_score.rouge_scorer", "matplotlib.figure", "llmft.commands.train"),
)
# Parts that a strategy shards over its processes.
SHARDED_PARTS = {"fsdp": ("weights", "gradients", "optimizer")}


@dataclass(frozen=True)
class Memory:
    """Peak memory of one process in a training step, in bytes.

    Attributes:
        process: Python, libraries and rows (CPU only; 0 on a GPU).
        weights: All weights and buffers of the model, and of a teacher.
        gradients: Gradients of the trainable parameters.
        optimizer: Optimizer states.
        activations: Activations of the largest batch, and temporary tensors of both passes; or what ``evaluate.dtype=float32``
            adds to the weights, if that is more.
    """

    process: int
    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def peak(self) -> int:
        """Sum of all parts."""
        return sum(asdict(self).values())


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
            if cfg.model.gradient_checkpointing:
                model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
            self.model = trainable.adapt(model, cfg.peft, cfg.model.lora_targets).to("meta")
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.counts = trainable.parameter_counts(self.model)
        self.forward = backbone.family(self.model)
        self.teacher = _teacher(cfg)

    def weights(self) -> int:
        """Bytes of all weights and buffers, including a teacher's."""
        quantization = BYTES_PER_WEIGHT.get(self.cfg.peft.quantise or "")
        head = self.model.get_output_embeddings()
        linear = {
            id(m.weight)
            for name, m in self.model.named_modules()
            if quantization and isinstance(m, nn.Linear) and m is not head and "lora_" not in name
        }
        each = {id(t): t for t in (*self.model.parameters(), *self.model.buffers())}
        return self.teacher + math.ceil(
            sum(
                t.numel() * (quantization if key in linear and quantization else t.element_size())
                for key, t in each.items()
            )
        )

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
        optimizer = instantiate(self.cfg.optim.node())([nn.Parameter(torch.empty_like(p)) for p in self.trained])
        if type(optimizer).__module__.startswith("bitsandbytes"):  # two 8-bit states, in blocks of 256
            return 2 * sum(p.numel() for p in self.trained), 0
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

    def activations(self, batch: dict[str, Any]) -> int:
        """Peak bytes of the forward and backward pass of a batch, without weights and gradients."""
        mixed = autocast_dtype(self.cfg.trainer.precision)
        kept = {p: p.data for p in self.model.parameters()}
        casts = 0
        if mixed:  # autocast computes in half precision, and caches half-precision copies of trainable weights
            casts = sum(p.numel() * 2 for p in self.trained if p.dim() > 1)
            self.model.to(mixed)
        for p in self.trained:
            p.grad = torch.empty_like(p)
        gradients = [p.grad for p in self.trained if p.grad is not None]
        eager = self.cfg.model.attention == "eager"
        fused = nullcontext() if eager else fused_attention(on_gpu=self.on_gpu)
        # causal models get no padding mask, only a block mask for packed sequences
        masked = "rows" in batch or self.model.config.is_encoder_decoder or self.forward.kernels.plain
        with fused, MemoryTracker(*self.model.parameters(), *self.model.buffers(), *gradients, masked=masked) as ledger:
            total, _ = self.forward.loss_sum(batch)
            total.backward()
        for p in self.model.parameters():
            p.data, p.grad = kept[p], None
        return ledger.peak + casts


def _teacher(cfg: TrainConfig) -> int:
    """Bytes of the teacher's weights; 0 without distillation."""
    if not cfg.peft.distill_from:
        return 0
    backbone = Backbone(distillation.config_of(cfg))
    config, auto_class = backbone.config, backbone.family.auto_class
    with torch.device("meta"):
        model = auto_class.from_config(config, dtype=load.dtype_of(backbone.model))
    return sum(p.numel() * p.element_size() for p in model.parameters())


def predict_memory(outline: MetaModel, data: InstructionDataModule) -> Memory:
    """Predict the memory of a training for its largest batch.

    Args:
        outline: The model on the meta device.
        data: Encoded data module.
    """
    trainer = outline.cfg.trainer
    batch = training_batch(
        [[data.encoded["train"][row] for row in pack] for pack in largest_batch(data, outline.cfg)], data.pad_id
    )
    states, update = outline.optimizer()
    parts = {"weights": outline.weights(), "gradients": outline.gradients(), "optimizer": states}
    activations = max(outline.activations(batch), update, outline.converted())
    ranks = trainer.devices * trainer.num_nodes
    if ranks > 1 and trainer.strategy == "ddp":
        activations += parts["gradients"]  # DDP's buckets
    shared = {
        name: size // ranks if name in SHARDED_PARTS.get(trainer.strategy, ()) else size for name, size in parts.items()
    }
    if outline.on_gpu:
        return Memory(process=0, activations=activations, **shared)
    with quantization.deferred_compile():  # as in a training
        for name in LOADED_LATER:
            import_module(name)
    return Memory(process=resident_bytes(), activations=int(MALLOC_SHARE * activations) + MALLOC_BYTES, **shared)


def largest_batch(data: InstructionDataModule, cfg: TrainConfig) -> list[Pack]:
    """The training batch with the maximum number of tokens, padding included."""
    options = {"batch_size": cfg.data.batch_size, "tokens_per_batch": cfg.data.tokens_per_batch}
    data.plan = replace(data.plan, **options)  # of a change that is tried
    batches = data.batches("train")
    epochs = cfg.trainer.max_epochs if cfg.trainer.max_epochs > 0 else MAX_EPOCHS_SCANNED

    def each() -> Iterator[list[Pack]]:
        for epoch in range(min(epochs, MAX_EPOCHS_SCANNED)):
            batches.set_epoch(epoch)
            yield from batches

    return max(each(), key=lambda lines: len(lines) * sum(batches.widest(lines)))


def available_bytes(*, on_gpu: bool) -> int | None:
    """Bytes of the GPU, or of what this process may use of the machine; None where that cannot be known."""
    if on_gpu:
        return torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else None
    import os
    import resource

    limits = [resource.getrlimit(resource.RLIMIT_AS)[0], os.sysconf("SC_PHYS_PAGES") * resource.getpagesize()]
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = Path(file).read_text().strip() if Path(file).is_file() else ""
        limits.append(int(text) if text.isdigit() else -1)
    return min((limit for limit in limits if limit > 0), default=None)


def resident_bytes() -> int:
    """Bytes that this process holds in memory now."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        import resource

        return int(statm.read_text().split()[1]) * resource.getpagesize()
    return int(peak_memory_mib()["cpu"] * 2**20)
