"""Predict the memory of a training by part, from a model on the meta device."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path

from llmft.config.schema import TrainConfig
from llmft.data.batching.collate import training_batch
from llmft.data.batching.sampler import Pack
from llmft.data.datamodule import InstructionDataModule
from llmft.estimate.gpu import CONTEXT_BYTES, FRAGMENTED
from llmft.estimate.meta_model import MetaModel
from llmft.models.backbone import quantization
from llmft.utils.memory import peak_memory_mib

MAX_EPOCHS_SCANNED = 3
# Fragmentation of the C library's malloc between tensors of many sizes: a quarter more and 64 MiB, fitted to the runs of
# benchmarks/estimate.py.
MALLOC_SHARE, MALLOC_BYTES = 1.25, 64 * 2**20
# Modules that a training imports later; they are imported here so that their memory counts.
LOADED_LATER = (
    *("torch._dynamo", "torch._inductor.config", "torch.utils.tensorboard", "lightning.pytorch", "peft", "networkx"),
    *("sacrebleu", "rouge_score.rouge_scorer", "matplotlib.figure", "llmft.commands.train"),
)


@dataclass(frozen=True)
class Memory:
    """Peak memory of one process in a training step, in bytes.

    Attributes:
        process: Python, libraries and rows; on a GPU its CUDA context.
        weights: All weights and buffers of the model, and of a teacher.
        gradients: Gradients of the trainable parameters.
        optimizer: Optimizer states.
        activations: Activations of the largest batch, and temporary tensors of both passes; or what ``evaluate.dtype=float32``
            adds to the weights, if that is more. With FSDP2 also the weights that are gathered at a time.
        allocator: What a GPU's caching allocator holds in blocks that no tensor fits into (0 on a CPU, where malloc's share is
            counted with the activations).
    """

    process: int
    weights: int
    gradients: int
    optimizer: int
    activations: int
    allocator: int

    @property
    def peak(self) -> int:
        """Sum of all parts."""
        return sum(asdict(self).values())


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
    if trainer.strategy == "fsdp":
        activations += outline.gathered()
        parts = {name: size // ranks for name, size in parts.items()}
    if outline.on_gpu:
        return Memory(process=CONTEXT_BYTES, activations=activations, allocator=int(FRAGMENTED * activations), **parts)
    with quantization.deferred_compile():  # as in a training
        for name in LOADED_LATER:
            import_module(name)
    activations = int(MALLOC_SHARE * activations) + MALLOC_BYTES
    return Memory(process=resident_bytes(), activations=activations, allocator=0, **parts)


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


def available_bytes() -> int | None:
    """Bytes of memory that this process may use of the machine; None where that cannot be known."""
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
