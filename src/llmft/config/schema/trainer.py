"""Schema of ``optim``, ``scheduler`` and ``trainer``."""

from omegaconf import DictConfig

from llmft.config.schema.cross_field import Faults, cross_field
from llmft.config.schema.types import (
    COUNT,
    COUNT_OR_OFF,
    DROPOUT,
    FLAG,
    FLOAT32,
    FROM_ZERO,
    NOT_NEGATIVE,
    POSITIVE,
    RATE,
    Rule,
    is_int,
    is_list,
    one_of,
)

RULES: dict[str, Rule] = {
    "optim.lr": RATE,
    "optim.weight_decay": NOT_NEGATIVE,
    "optim.betas": Rule(
        "two numbers from 0 to below 1", lambda v: is_list(v) and len(v) == 2 and all(map(DROPOUT.accepts, v))
    ),
    "optim.fused": Rule("auto, true or false", lambda v: v == "auto" or isinstance(v, bool)),
    "optim.bits": Rule("8 or 32", lambda v: is_int(v) and v in (8, 32)),
    "optim.paged": FLAG,
    "optim.fallback": FLAG,
    "scheduler.name": one_of("linear", "cosine", "constant_with_warmup", "plateau"),
    "scheduler.factor": Rule("a number between 0 and 1", lambda v: POSITIVE.accepts(v) and v < 1),
    "scheduler.patience": FROM_ZERO,
    "scheduler.warmup_steps": Rule(
        "a whole number of steps, or a fraction below 1", lambda v: FROM_ZERO.accepts(v) or DROPOUT.accepts(v)
    ),
    "trainer.devices": COUNT,
    "trainer.num_nodes": COUNT,
    "trainer.precision": one_of(
        "32-true", "bf16-mixed", "16-mixed"
    ),  # the others would store trainable parameters in less than float32
    "trainer.accelerator": one_of("auto", "cpu", "gpu", "cuda", "mps"),
    "trainer.strategy": one_of("auto", "ddp", "fsdp"),
    "trainer.fast_dev_run": FLAG,
    "trainer.deterministic": Rule("true, false or warn", lambda v: FLAG.accepts(v) or v == "warn"),
    "trainer.val_check_interval": Rule(
        "a whole number of batches, or a fraction of the epoch up to 1.0",
        lambda v: COUNT.accepts(v) or (POSITIVE.accepts(v) and v <= 1),
    ),
    "trainer.check_val_every_n_epoch": COUNT,
    "trainer.max_epochs": COUNT_OR_OFF,
    "trainer.max_steps": COUNT_OR_OFF,
    "trainer.accumulate_grad_batches": COUNT,
    "trainer.log_every_n_steps": COUNT,
}


@cross_field("trainer.precision", "trainer.accelerator")
def _float16_needs_a_gpu(cfg: DictConfig) -> Faults:
    if cfg.trainer.precision == "16-mixed" and cfg.trainer.accelerator == "cpu":
        yield "trainer.precision=16-mixed: float16 needs a GPU; use bf16-mixed or 32-true"


@cross_field("trainer.precision", "trainer.accelerator", imports=True)
def _float16_without_a_gpu(cfg: DictConfig) -> Faults:
    if cfg.trainer.precision != "16-mixed" or cfg.trainer.accelerator != "auto":
        return
    from llmft.utils.device import runs_on_gpu  # imports torch

    if not runs_on_gpu(cfg.trainer):  # Lightning would take bf16-mixed instead
        yield "trainer.precision=16-mixed: float16 needs a GPU, and there is none here; use bf16-mixed or 32-true"


@cross_field("optim.lr", "optim.betas", "optim.weight_decay")
def _step_size(cfg: DictConfig) -> Faults:
    lr, beta = cfg.optim.lr, cfg.optim.betas[0]
    # Adam's bias correction divides lr by 1 - beta1 in the first step; decoupled decay multiplies it by weight_decay
    if lr / (1 - beta) > FLOAT32 or lr * cfg.optim.weight_decay > FLOAT32:
        others = f"optim.betas={list(cfg.optim.betas)} and optim.weight_decay={cfg.optim.weight_decay}"
        yield f"optim.lr={lr}: with {others} a step overflows float32; lower it"


@cross_field("optim.paged", "optim.fallback", "trainer.accelerator", imports=True)
def _paging(cfg: DictConfig) -> Faults:
    from llmft.utils.device import cannot_page  # imports torch

    if cfg.optim.paged and not cfg.optim.fallback and (why := cannot_page(cfg.trainer.accelerator)):
        yield f"optim.paged=true: {why}; use optim=adamw_8bit, or optim.fallback=true to train without paging"


@cross_field("peft.method", "trainer.devices")
def _unfreezing_alone(cfg: DictConfig) -> Faults:
    if cfg.peft.method == "unfreeze" and cfg.trainer.devices != 1:
        # DDP fixes the set of parameters that it reduces when it wraps the model
        yield f"peft=unfreeze: only trains in one process, but trainer.devices is {cfg.trainer.devices}"


@cross_field("trainer.max_epochs", "trainer.max_steps")
def _end(cfg: DictConfig) -> Faults:
    if cfg.trainer.max_epochs == -1 and cfg.trainer.max_steps == -1:
        yield "trainer.max_epochs=-1: the training would never end; set trainer.max_steps"


@cross_field("trainer.val_check_interval", "trainer.accumulate_grad_batches")
def _validation_in_a_window(cfg: DictConfig) -> Faults:
    interval, window = cfg.trainer.val_check_interval, cfg.trainer.accumulate_grad_batches
    if isinstance(interval, int) and interval % window:
        yield (
            f"trainer.val_check_interval={interval}: must be a multiple of trainer.accumulate_grad_batches={window}, "
            "so that validation falls between optimizer steps"
        )


@cross_field("trainer.devices", "trainer.strategy")
def _processes(cfg: DictConfig) -> Faults:
    if cfg.trainer.devices > 1 and cfg.trainer.strategy == "auto":
        yield f"trainer.devices={cfg.trainer.devices}: several processes need a strategy; use trainer=ddp trainer.devices=N"


@cross_field("trainer.devices", "trainer.num_nodes", "trainer.strategy")
def _nodes(cfg: DictConfig) -> Faults:
    devices, nodes, strategy = cfg.trainer.devices, cfg.trainer.num_nodes, cfg.trainer.strategy
    if nodes > 1 and strategy == "auto":
        yield f"trainer.num_nodes={nodes}: several nodes need a strategy; use trainer=ddp, fsdp or slurm"
    if devices * nodes == 1 and strategy == "fsdp":
        yield "trainer.strategy=fsdp: shards the weights over several processes, but there is one; set trainer.devices=N"


@cross_field("trainer.strategy", "evaluate.in_training")
def _no_whole_model(cfg: DictConfig) -> Faults:
    if cfg.trainer.strategy == "fsdp" and cfg.evaluate.in_training:
        yield "evaluate.in_training=true: generation needs the full model, which trainer=fsdp shards; use trainer=ddp"


@cross_field("trainer.strategy", "data.batching", "model.family")
def _shared_and_packed(cfg: DictConfig) -> Faults:
    if cfg.trainer.strategy == "fsdp" and cfg.data.batching == "packed" and cfg.model.family == "seq2seq":
        yield "data.batching=packed: calls the encoder separately for a seq2seq model, which trainer=fsdp cannot; use tokens"


@cross_field("trainer.strategy", "peft.quantise")
def _sharded_int8(cfg: DictConfig) -> Faults:
    if cfg.trainer.strategy == "fsdp" and cfg.peft.quantise == "int8":
        # bitsandbytes keeps the scales on the Int8Params object, which fully_shard replaces
        yield (
            "peft.quantise=int8: trainer=fsdp would separate the weights from their scales; "
            "use peft=qlora, or trainer=ddp"
        )


@cross_field("trainer.strategy", "optim._target_")
def _sharded_optimizer(cfg: DictConfig) -> Faults:
    if cfg.trainer.strategy == "fsdp" and cfg.optim._target_.endswith(".bnb_adamw"):
        # its kernels take plain tensors, and sharded parameters are DTensors
        yield "optim: AdamW of bitsandbytes cannot update weights that trainer=fsdp shards; use optim=adamw, or trainer=ddp"


@cross_field("scheduler.warmup_steps", "trainer.max_steps")
def _warm_up(cfg: DictConfig) -> Faults:
    warmup, steps = cfg.scheduler.warmup_steps, cfg.trainer.max_steps
    if warmup >= 1 and steps != -1 and warmup >= steps:
        yield warmup_too_long(warmup, f"trainer.max_steps is {steps}")


def warmup_too_long(warmup: int, why: str) -> str:
    """Error message for a warm-up that is as long as the training."""
    key = f"scheduler.warmup_steps={warmup}"
    return f"{key}: {why}, so the learning rate would never reach optim.lr; use fewer steps, or a fraction such as 0.1"
