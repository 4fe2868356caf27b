"""The rules between keys: what two values that are fine alone must not be together."""

import os
import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from llmft.config import did_you_mean
from llmft.evaluation.metric import BETTER, LOGGED
from llmft.rules import FLOAT32

Faults = Iterator[str]
SCORES = [f"val/{name}" for name, better in BETTER.items() if better and name != "judge"]
TRAINED = [f"train/{name}" for name in LOGGED]
# Arguments of callbacks, loggers and the trainer that say where they write, and parts of such names.
FOLDERS = ("save_dir", "dirpath", "dir", "default_root_dir", "root_dir", "log_dir", "tracking_uri", "artifact_location")
PARTS = ("filename", "version", "sub_dir", "name", "file", "folder")
# Keys of the generation group that are ours and not of GenerationConfig.
OURS = ("batch_size", "batch_tokens", "samples", "seed")


class Together(NamedTuple):
    """A rule between keys: it applies where the config has all of them, and each of them is fine alone.

    Attributes:
        keys: Between which it is.
        faults: What is wrong.
        imports: Whether it asks a library, which takes seconds to import.
    """

    keys: tuple[str, ...]
    faults: Callable[[DictConfig], Faults]
    imports: bool

    def applies(self, cfg: DictConfig, broken: Collection[str]) -> bool:
        """Whether the rule can be asked: a broken key (or one above or below it) has its own fault already."""
        return not any(within(key, bad) for key in self.keys for bad in broken) and all(_has(cfg, k) for k in self.keys)


TOGETHER: list[Together] = []


def between(
    *keys: str, imports: bool = False
) -> Callable[[Callable[[DictConfig], Faults]], Callable[[DictConfig], Faults]]:
    """Add a rule between these keys to the list."""

    def add(faults: Callable[[DictConfig], Faults]) -> Callable[[DictConfig], Faults]:
        TOGETHER.append(Together(keys, faults, imports))
        return faults

    return add


@between("questions", "baseline")
def _questions_of_a_training(cfg: DictConfig) -> Faults:
    if isinstance(cfg.questions, bool) or not isinstance(cfg.questions, int) or cfg.questions < 0:
        yield f"questions={cfg.questions}: must be a whole number of at least 0"


@between("questions", "question")
def _samples(cfg: DictConfig) -> Faults:
    if cfg.questions not in (None, "samples"):
        yield f"questions={cfg.questions}: must be samples (five built-in questions) or null"


@between("compare", "run")
def _compared(cfg: DictConfig) -> Faults:
    if cfg.compare and cfg.run is None:
        yield "compare=true: a plain model has no other to be compared with; pass run=RUN"


@between("data.split.train", "data.split.val", "data.split.test")
def _shares(cfg: DictConfig) -> Faults:
    split = cfg.data.split
    if (split.train or 0) + split.val + split.test > 1 + 1e-9:
        shares = f"train {split.train}, val {split.val}, test {split.test}"
        yield f"data.split: the shares add up to more than 1: {shares}; data.split.train=null takes the rest"


@between("data.train_on", "model.family")
def _seq2seq_answers(cfg: DictConfig) -> Faults:
    if cfg.data.train_on == "all" and cfg.model.family == "seq2seq":
        yield "data.train_on=all: a seq2seq model trains on the answer alone; use data.train_on=answer"


@between("prompt.name", "prompt.template")
def _unused_template(cfg: DictConfig) -> Faults:
    if cfg.prompt.name == "auto" and cfg.prompt.template is not None:
        yield "prompt.template: prompt=auto would not use it; choose prompt=plain and set its template"


@between("model.family", "model._target_")
def _family(cfg: DictConfig) -> Faults:
    if not str(cfg.model._target_).lower().endswith(f".{cfg.model.family}"):
        yield f"model.family={cfg.model.family}: {cfg.model._target_} is of the other family"


@between("trainer.precision", "model.family")
def _float16(cfg: DictConfig) -> Faults:
    precision = str(cfg.trainer.precision)
    if precision.startswith("16") and cfg.model.family == "seq2seq":
        # a feed-forward layer of T5 reaches 66,246; float16 ends at 65,504 (transformers #5651)
        yield f"trainer.precision={precision}: T5 overflows in float16; use bf16-mixed or 32-true"


@between("trainer.precision", "trainer.accelerator")
def _float16_needs_a_gpu(cfg: DictConfig) -> Faults:
    if cfg.trainer.precision == "16-mixed" and cfg.trainer.accelerator == "cpu":
        yield "trainer.precision=16-mixed: float16 needs a GPU; use bf16-mixed or 32-true"


@between("model.dtype", "peft.method", "model.new_tokens")
def _half_weights(cfg: DictConfig) -> Faults:
    if cfg.model.dtype in ("auto", "float32"):
        return
    if cfg.peft.method != "lora":
        trained = "full fine-tuning" if cfg.peft.method == "none" else f"peft={cfg.peft.name}"
        yield f"model.dtype={cfg.model.dtype}: it would lose small updates of {trained}; use float32"
    elif cfg.model.new_tokens:
        yield f"model.dtype={cfg.model.dtype}: it would lose small updates of model.new_tokens; use float32"


@between("model.padding", "model.gradient_checkpointing", "trainer.strategy")
def _padding_skipped(cfg: DictConfig) -> Faults:
    if cfg.model.padding == "skipped" and cfg.model.gradient_checkpointing:
        yield "model.padding=skipped: with model.gradient_checkpointing a layer runs twice, and must run alike; use kept"
    if cfg.model.padding == "skipped" and cfg.trainer.strategy == "fsdp":
        yield "model.padding=skipped: trainer=fsdp needs the same calls in all processes; use kept"


@between("model.attention", "model.gradient_checkpointing")
def _runs_alike_twice(cfg: DictConfig) -> Faults:
    if cfg.model.attention == "by_length" and cfg.model.gradient_checkpointing:
        yield "model.attention=by_length: with model.gradient_checkpointing a layer runs twice, and must run alike; use sdpa"


@between("peft.method", "peft.quantise")
def _quantised_weights_are_frozen(cfg: DictConfig) -> Faults:
    if cfg.peft.quantise and cfg.peft.method != "lora":
        yield (
            f"peft.quantise={cfg.peft.quantise}: quantised weights cannot be trained, and peft.method={cfg.peft.method} "
            "would train them; use peft=qlora or peft=lora_8bit, or no peft.quantise"
        )


@between("optim.lr", "optim.betas", "optim.weight_decay")
def _step_size(cfg: DictConfig) -> Faults:
    lr, beta = cfg.optim.lr, cfg.optim.betas[0]
    # Adam's first step divides by what is left of the first beta; decoupled decay multiplies
    if lr / (1 - beta) > FLOAT32 or lr * cfg.optim.weight_decay > FLOAT32:
        others = f"optim.betas={list(cfg.optim.betas)} and optim.weight_decay={cfg.optim.weight_decay}"
        yield f"optim.lr={lr}: with {others} a step is larger than float32 can hold; lower it"


@between("optim.paged", "optim.fallback", "trainer.accelerator", imports=True)
def _paging(cfg: DictConfig) -> Faults:
    from llmft.models.optimizer import cannot_page

    if cfg.optim.paged and not cfg.optim.fallback and (why := cannot_page(cfg.trainer.accelerator)):
        yield f"optim.paged=true: {why}; use optim=adamw_8bit, or optim.fallback=true to go on without paging"


@between("peft.method", "trainer.devices")
def _unfreezing_alone(cfg: DictConfig) -> Faults:
    if cfg.peft.method == "unfreeze" and cfg.trainer.devices != 1:
        # DDP decides at its start which gradients it waits for
        yield f"peft=unfreeze: trains in one process, but trainer.devices is {cfg.trainer.devices}"


@between("model.new_tokens", "peft.method")
def _new_tokens_without_their_embeddings(cfg: DictConfig) -> Faults:
    if cfg.model.new_tokens and cfg.peft.method == "head":
        yield "model.new_tokens: their embeddings must be trained, and peft=head trains the head alone"


@between("model.new_tokens", "peft.schedule")
def _new_tokens_never_unfrozen(cfg: DictConfig) -> Faults:
    if cfg.model.new_tokens and cfg.peft.schedule[-1][1] != "all":
        yield "model.new_tokens: their embeddings must be trained, but peft.schedule does not end with all"


@between("peft.distill_from", "model.path", "model.name")
def _own_teacher(cfg: DictConfig) -> Faults:
    if cfg.peft.distill_from == cfg.model.path or cfg.peft.distill_from == cfg.model.name:
        yield f"peft.distill_from={cfg.peft.distill_from}: is the model that learns; name a larger one of its vocabulary"


@between("callbacks.early_stopping.patience", "data.split.val")
def _early_stopping(cfg: DictConfig) -> Faults:
    patience = cfg.callbacks.early_stopping.patience
    if patience is not None and not cfg.data.split.val:
        yield f"callbacks.early_stopping.patience={patience}: needs a validation set, but data.split.val is 0"


@between("trainer.max_epochs", "trainer.max_steps")
def _end(cfg: DictConfig) -> Faults:
    if cfg.trainer.max_epochs == -1 and cfg.trainer.max_steps == -1:
        yield "trainer.max_epochs=-1: needs an end; set trainer.max_steps"


@between("data.streaming", "data.name", "trainer.max_steps")
def _stream(cfg: DictConfig) -> Faults:
    if not cfg.data.streaming:
        return
    if cfg.trainer.max_steps == -1:
        yield "data.streaming=true: how long an epoch is shows only at its end; say how long to train with trainer.max_steps"
    if "sets" in cfg.data:
        yield "data.streaming=true: a mix of sets cannot be streamed; take one set, or streaming=false"


@between("trainer.val_check_interval", "trainer.accumulate_grad_batches")
def _validation_in_a_window(cfg: DictConfig) -> Faults:
    interval, window = cfg.trainer.val_check_interval, cfg.trainer.accumulate_grad_batches
    if isinstance(interval, int) and interval % window:
        yield (
            f"trainer.val_check_interval={interval}: must be a multiple of trainer.accumulate_grad_batches={window}, "
            "so that validation falls between optimizer steps"
        )


@between("trainer.devices", "trainer.strategy")
def _processes(cfg: DictConfig) -> Faults:
    if cfg.trainer.devices > 1 and cfg.trainer.strategy == "auto":
        yield f"trainer.devices={cfg.trainer.devices}: several processes need a strategy; use trainer=ddp trainer.devices=N"


@between("trainer.devices", "trainer.num_nodes", "trainer.strategy")
def _nodes(cfg: DictConfig) -> Faults:
    devices, nodes, strategy = cfg.trainer.devices, cfg.trainer.num_nodes, cfg.trainer.strategy
    if nodes > 1 and strategy == "auto":
        yield f"trainer.num_nodes={nodes}: several nodes need a strategy; use trainer=ddp, fsdp or slurm"
    if devices * nodes == 1 and strategy == "fsdp":
        yield "trainer.strategy=fsdp: shares the weights out among processes, but there is one; set trainer.devices=N"


@between("trainer.strategy", "evaluate.in_training")
def _no_whole_model(cfg: DictConfig) -> Faults:
    if cfg.trainer.strategy == "fsdp" and cfg.evaluate.in_training:
        yield "evaluate.in_training=true: answers need the whole model, which trainer=fsdp shares out; use trainer=ddp"


@between("trainer.strategy", "data.batching", "model.family")
def _shared_and_packed(cfg: DictConfig) -> Faults:
    if cfg.trainer.strategy == "fsdp" and cfg.data.batching == "packed" and cfg.model.family == "seq2seq":
        yield "data.batching=packed: calls the encoder of a seq2seq model alone, which trainer=fsdp cannot; use tokens"


@between("scheduler.warmup_steps", "trainer.max_steps")
def _warm_up(cfg: DictConfig) -> Faults:
    warmup, steps = cfg.scheduler.warmup_steps, cfg.trainer.max_steps
    if warmup >= 1 and steps != -1 and warmup >= steps:
        yield endless_warm_up(warmup, f"trainer.max_steps is {steps}")


@between("callbacks")
def _callbacks(cfg: DictConfig) -> Faults:
    yield from _without_class(cfg, "callbacks")


@between("logger")
def _loggers(cfg: DictConfig) -> Faults:
    yield from _without_class(cfg, "logger")


def _without_class(cfg: DictConfig, group: str) -> Faults:
    for name, node in cfg[group].items():
        if node is not None and not (isinstance(node, DictConfig) and "_target_" in node):
            yield f"{group}.{name}: must be null, or keys with _target_ among them"


@between("output_dir", "callbacks", "logger", "trainer")
def _inside(cfg: DictConfig) -> Faults:
    """A run writes into its own directory alone, whatever its config says."""
    root = Path(os.path.abspath(cfg.output_dir))  # noqa: PTH100 (the file may be a link; the name counts)
    for group in ("callbacks", "logger", "trainer"):
        try:
            nodes = OmegaConf.to_container(cfg[group], resolve=True)
        except OmegaConfBaseException as error:
            yield f"{group}: {str(error).splitlines()[0]}"
            continue
        for path, key, value in _written(nodes, group):
            folder = Path(os.path.abspath(re.sub("^file:(//)?", "", value)))  # noqa: PTH100
            within = folder == root or root in folder.parents or value.startswith(("http://", "https://"))
            if "\0" in value or (key in FOLDERS and not within) or (key in PARTS and not _is_part(value)):
                yield f"{path}={value}: leads out of output_dir={cfg.output_dir}; a run writes nothing elsewhere"


def _written(node: Any, path: str) -> Iterator[tuple[str, str, str]]:
    if isinstance(node, dict):
        for key, child in node.items():
            if isinstance(child, str) and key in (*FOLDERS, *PARTS):
                yield f"{path}.{key}", key, child
            yield from _written(child, f"{path}.{key}")


def _is_part(text: str) -> bool:
    return not text.startswith(("/", "~")) and ".." not in text.split("/") and len(text.encode()) <= 200


@between("objective", "callbacks")
def _objective(cfg: DictConfig) -> Faults:
    yield from _monitored(cfg, "objective", cfg.objective)


@between("callbacks.early_stopping.monitor", "callbacks")
def _early_stopping_monitor(cfg: DictConfig) -> Faults:
    if (monitor := cfg.callbacks.early_stopping.monitor) != cfg.get("objective"):
        yield from _monitored(cfg, "callbacks.early_stopping.monitor", monitor)


@between("callbacks.checkpoints.monitor", "callbacks")
def _checkpoints_monitor(cfg: DictConfig) -> Faults:
    if (monitor := cfg.callbacks.checkpoints.monitor) != cfg.get("objective"):
        yield from _monitored(cfg, "callbacks.checkpoints.monitor", monitor)


@between("data.path", "data.split")
def _no_rows(cfg: DictConfig) -> Faults:
    if cfg.data.path is None:
        yield "data.path=None: must be text; data.path=sample for the shipped rows"


@between("judge.kind", "evaluate.rows")
def _judge(cfg: DictConfig) -> Faults:
    if cfg.judge.kind != "none" and (cfg.evaluate.rows == 0 or OmegaConf.select(cfg, "trainer.fast_dev_run")):
        yield f"judge={cfg.judge.kind}: needs answers to judge, but evaluate.rows is {cfg.evaluate.rows}"


@between("evaluate.seeds", "generation.do_sample")
def _seeds(cfg: DictConfig) -> Faults:
    if cfg.evaluate.seeds and not cfg.generation.do_sample and cfg.get("run") is None:
        seeds = list(cfg.evaluate.seeds)
        yield f"evaluate.seeds={seeds}: greedy and beam answers are the same for each; use generation=sample"


@between("evaluate.in_training", "evaluate.rows")
def _answers_in_training(cfg: DictConfig) -> Faults:
    if cfg.evaluate.in_training and cfg.evaluate.rows == 0:
        yield "evaluate.in_training=true: needs rows to answer, but evaluate.rows is 0"


@between("generation", imports=True)
def _generation(cfg: DictConfig) -> Faults:
    from llmft.generation import settings_fault

    if fault := settings_fault({k: v for k, v in cfg.generation.items() if k not in OURS}):
        yield fault


def endless_warm_up(warmup: int, why: str) -> str:
    """The fault of a warm-up that is longer than the training."""
    key = f"scheduler.warmup_steps={warmup}"
    return f"{key}: {why}, so the learning rate would never reach optim.lr; take fewer steps, or a share such as 0.1"


def _monitored(cfg: DictConfig, key: str, metric: Any) -> Faults:
    generated = bool(OmegaConf.select(cfg, "evaluate.in_training"))
    logged = [*(SCORES if generated else SCORES[:2]), *TRAINED]
    own = [
        node
        for node in cfg.callbacks.values()
        if isinstance(node, DictConfig) and not str(node.get("_target_")).startswith("llmft.")
    ]
    if not str(metric).startswith(("val/", "train/")):
        yield f"{key}={metric}: must be a metric as it is logged, val/... or train/...; {', '.join(logged)}"
    elif metric in SCORES and metric not in logged:
        yield f"{key}={metric}: is measured in training with evaluate.in_training=true alone"
    elif metric not in logged and not own:  # a callback of the user's may log anything
        yield f"{key}={metric}: no such metric.{did_you_mean(metric, [*SCORES, *TRAINED])} {', '.join(logged)} are logged"


def within(key: str, bad: str) -> bool:
    """Whether one key is the other, or above or below it."""
    return key == bad or key.startswith(f"{bad}.") or bad.startswith(f"{key}.")


def _has(cfg: DictConfig, key: str) -> bool:
    above, _, name = key.rpartition(".")
    parent = OmegaConf.select(cfg, above) if above else cfg
    return isinstance(parent, DictConfig) and name in parent and not OmegaConf.is_missing(parent, name)
