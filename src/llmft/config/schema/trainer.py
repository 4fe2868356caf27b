"""Schema of ``trainer``, ``optim`` and ``scheduler``."""

from typing import Annotated, Literal

from pydantic import Field

from llmft.config.schema.rules import Faults, rule
from llmft.config.schema.section import Absent, TargetSection, absent
from llmft.config.schema.types import (
    FLOAT32,
    BelowOne,
    Count,
    CountOrOff,
    FromZero,
    LearningRate,
    Must,
    NotNegative,
    PositiveFraction,
)


class Optim(TargetSection):
    """The optimizer; further keys are arguments of its class."""

    lr: LearningRate = Field(description="Peak learning rate.")
    weight_decay: Absent[NotNegative] = absent("Decoupled weight decay.")
    betas: Absent[
        Annotated[list[BelowOne], Field(min_length=2, max_length=2), Must("two numbers from 0 to below 1")]
    ] = absent("Decay rates of Adam's moments.")
    fused: Absent[Annotated[Literal["auto"] | bool, Must("auto, true or false")]] = absent(
        "Fused kernel, one pass over the weights instead of one per operation."
    )
    bits: Absent[Annotated[Literal[8, 32], Must("8 or 32")]] = absent(
        "Bits per moment; tensors with fewer than 4,096 weights keep 32."
    )
    paged: Absent[bool] = absent("Page the moments to CPU memory when a CUDA GPU runs short.")
    fallback: Absent[bool] = absent("Continue without paging where it is not supported.")


class Scheduler(TargetSection):
    """The learning-rate schedule; further keys are arguments of its function."""

    name: Absent[Literal["linear", "cosine", "constant_with_warmup", "plateau"]] = absent("Shape of the schedule.")
    warmup_steps: Absent[Annotated[FromZero | BelowOne, Must("a whole number of steps, or a fraction below 1")]] = (
        absent("Optimizer steps of warm-up, or a fraction of all steps if below 1.")
    )
    factor: Absent[Annotated[int | float, Field(gt=0, lt=1), Must("a number between 0 and 1")]] = absent(
        "Multiplies the learning rate on a plateau."
    )
    patience: Absent[FromZero] = absent("Optimizer steps without improvement over the best loss so far.")


class Trainer(TargetSection):
    """Lightning's Trainer; further keys are its arguments."""

    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = Field(description="Type of hardware.")
    devices: Count = Field(description="Processes per node; each takes data.batch_size examples per batch.")
    num_nodes: Count = Field(description="Number of machines.")
    strategy: Literal["auto", "ddp", "fsdp"] = Field(
        description="ddp replicates the model over several processes, fsdp shards it."
    )
    # the other precisions would store trainable parameters in less than float32
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = Field(
        description="Precision of the computation: auto (bf16-mixed on a GPU that multiplies bfloat16, 32-true elsewhere), "
        "32-true, bf16-mixed or 16-mixed."
    )
    max_epochs: CountOrOff = Field(description="Number of epochs; -1 for no limit.")
    max_steps: CountOrOff = Field(description="Number of optimizer steps; -1 for no limit.")
    accumulate_grad_batches: Count = Field(description="Batches per optimizer step (gradient accumulation).")
    log_every_n_steps: Count = Field(description="Optimizer steps between two rows of metrics.csv.")
    val_check_interval: Annotated[
        Count | PositiveFraction, Must("a whole number of batches, or a fraction of the epoch up to 1.0")
    ] = Field(description="Batches between validations, or a fraction of the epoch (a float up to 1.0).")
    check_val_every_n_epoch: Count = Field(description="Epochs between validations.")
    fast_dev_run: bool = Field(description="One batch of training and validation; nothing is saved.")
    deterministic: Annotated[bool | Literal["auto", "warn"], Must("auto, true, false or warn")] = Field(
        description="Deterministic algorithms; where there is none, true fails, warn warns. auto: warn on a CPU, false on a GPU."
    )


@rule("trainer.precision", "trainer.accelerator")
def _float16_needs_a_gpu(trainer: Trainer) -> Faults:
    if trainer.precision == "16-mixed" and trainer.accelerator == "cpu":
        yield "trainer.precision=16-mixed: float16 needs a GPU; use bf16-mixed or 32-true"


@rule("trainer.precision", "trainer.accelerator", machine=True)
def _half_precision_here(trainer: Trainer) -> Faults:
    if trainer.precision not in ("16-mixed", "bf16-mixed"):
        return
    from llmft.utils.device import accelerator_of, lacks_bfloat16  # imports torch

    if trainer.precision == "16-mixed" and trainer.accelerator == "auto" and accelerator_of(trainer) == "cpu":
        # Lightning would take bf16-mixed instead
        yield "trainer.precision=16-mixed: float16 needs a GPU, and there is none here; use bf16-mixed or 32-true"
    if trainer.precision == "bf16-mixed" and (why := lacks_bfloat16(trainer)):
        yield f"trainer.precision=bf16-mixed: {why}; use 32-true, or 16-mixed (not for T5)"


@rule("trainer.precision", "trainer.strategy")
def _float16_sharded(trainer: Trainer) -> Faults:
    if trainer.precision == "16-mixed" and trainer.strategy == "fsdp":
        yield "trainer.precision=16-mixed: Lightning scales no gradients that trainer=fsdp shards; use bf16-mixed"


@rule("optim.lr", "optim.betas", "optim.weight_decay")
def _step_size(optim: Optim) -> Faults:
    beta, decay = (optim.betas or [0.0])[0], optim.weight_decay or 0.0
    # Adam's bias correction divides lr by 1 - beta1 in the first step; decoupled decay multiplies it by weight_decay
    if optim.lr / (1 - beta) > FLOAT32 or optim.lr * decay > FLOAT32:
        others = f"optim.betas={optim.betas} and optim.weight_decay={optim.weight_decay}"
        yield f"optim.lr={optim.lr}: with {others} a step overflows float32; lower it"


@rule("optim.paged", "optim.fallback", "trainer.accelerator", machine=True)
def _paging(optim: Optim, trainer: Trainer) -> Faults:
    from llmft.utils.device import cannot_page  # imports torch

    if optim.paged and not optim.fallback and (why := cannot_page(trainer.accelerator)):
        yield f"optim.paged=true: {why}; use optim=adamw_8bit, or optim.fallback=true to train without paging"


@rule("trainer.max_epochs", "trainer.max_steps")
def _end(trainer: Trainer) -> Faults:
    if trainer.max_epochs == -1 and trainer.max_steps == -1:
        yield "trainer.max_epochs=-1: the training would never end; set trainer.max_steps"


@rule("trainer.val_check_interval", "trainer.accumulate_grad_batches")
def _validation_in_a_window(trainer: Trainer) -> Faults:
    interval, window = trainer.val_check_interval, trainer.accumulate_grad_batches
    if isinstance(interval, int) and interval % window:
        yield (
            f"trainer.val_check_interval={interval}: must be a multiple of trainer.accumulate_grad_batches={window}, "
            "so that validation falls between optimizer steps"
        )


@rule("trainer.devices", "trainer.strategy")
def _processes(trainer: Trainer) -> Faults:
    if trainer.devices > 1 and trainer.strategy == "auto":
        yield f"trainer.devices={trainer.devices}: several processes need a strategy; use trainer=ddp trainer.devices=N"


@rule("trainer.devices", "trainer.num_nodes", "trainer.strategy")
def _nodes(trainer: Trainer) -> Faults:
    if trainer.num_nodes > 1 and trainer.strategy == "auto":
        yield f"trainer.num_nodes={trainer.num_nodes}: several nodes need a strategy; use trainer=ddp, fsdp or slurm"
    if trainer.devices * trainer.num_nodes == 1 and trainer.strategy == "fsdp":
        yield "trainer.strategy=fsdp: shards the weights over several processes, but there is one; set trainer.devices=N"


@rule("trainer.strategy", "optim._target_")
def _sharded_optimizer(trainer: Trainer, optim: Optim) -> Faults:
    if trainer.strategy == "fsdp" and optim.target.endswith(".bnb_adamw"):
        # its kernels take plain tensors, and sharded parameters are DTensors
        yield "optim: AdamW of bitsandbytes cannot update weights that trainer=fsdp shards; use optim=adamw, or trainer=ddp"


@rule("scheduler.warmup_steps", "trainer.max_steps")
def _warm_up(scheduler: Scheduler, trainer: Trainer) -> Faults:
    warmup, steps = scheduler.warmup_steps, trainer.max_steps
    if warmup is not None and warmup >= 1 and steps != -1 and warmup >= steps:
        yield warmup_too_long(warmup, f"trainer.max_steps is {steps}")


def warmup_too_long(warmup: float, why: str) -> str:
    """Error message for a warm-up that is as long as the training."""
    key = f"scheduler.warmup_steps={warmup}"
    return f"{key}: {why}, so the learning rate would never reach optim.lr; use fewer steps, or a fraction such as 0.1"
