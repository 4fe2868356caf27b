"""Schema of ``callbacks``, ``logger`` and the monitored metrics."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from llmft.config.metric_names import BETTER, OUTSIDE, TRAIN_METRICS
from llmft.config.schema.data import Data, extra_val_names
from llmft.config.schema.evaluation import Evaluate
from llmft.config.schema.rules import Faults, rule
from llmft.config.schema.section import TargetSection
from llmft.config.schema.types import LARGEST, Count, FromZero, Must, NotNegative, Positive, Text
from llmft.utils.text import did_you_mean

SCORES = [f"val/{name}" for name, better in BETTER.items() if better and name not in OUTSIDE]
TRAINED = [f"train/{name}" for name in TRAIN_METRICS]

Mode = Literal["auto", "min", "max"]
MODE = "min, max, or auto: by the better direction of the metric."


class Callback(TargetSection):
    """A callback; further keys are arguments of its class."""


class GradientClipping(Callback):
    """Clips the norm of the gradient."""

    max_norm: Positive = Field(description="Maximum norm of the gradient of all trainable parameters.")


class NanGuard(Callback):
    """Halts a training that is broken."""

    zero_steps: Count = Field(
        description="Halt after this many consecutive steps with a loss, or gradient, of exactly 0."
    )
    explode_factor: Annotated[int | float, Field(gt=1, le=LARGEST), Must("a number above 1")] = Field(
        description="Halt when the loss is above this many times max(first loss, log of the vocabulary); no healthy training is "
        "three times worse than guessing."
    )
    explode_steps: Count = Field(description="Consecutive steps above explode_factor before the halt.")
    idle_steps: Annotated[int, Field(ge=2), Must("a whole number of at least 2")] = Field(
        description="Halt if a trainable parameter has not moved after this many steps (LoRA's A matrices need 2)."
    )
    history: Count = Field(description="Number of steps in the post-mortem.")
    monitor: Text = Field(description="The monitored metric.")


class Samples(Callback):
    """Generates answers to fixed prompts at each validation."""

    number: FromZero = Field(description="Number of sample prompts.")
    max_new_tokens: Count = Field(description="Maximum tokens of a sample answer.")


class GenerationMetrics(Callback):
    """Scores generated answers at each validation."""

    enabled: bool = Field(description="Whether it is on; evaluate.in_training sets it.")


class EarlyStopping(Callback):
    """Stops when the monitored metric no longer improves."""

    monitor: Text = Field(description="Any logged metric, e.g. train/loss; compared at each validation.")
    mode: Mode = Field(description=MODE)
    patience: Count | None = Field(description="Validations without improvement; null is off.")
    min_delta: NotNegative = Field(description="Smallest change that counts as an improvement.")


class Checkpoints(Callback):
    """Writes last.ckpt and best.ckpt."""

    monitor: Text = Field(description="Any logged metric; its value at each validation counts.")
    mode: Mode = Field(description=MODE)
    every_n_steps: Count | None = Field(
        description="Optimizer steps between checkpoints, in addition to those at validations."
    )


class Pruning(Callback):
    """Prunes jobs of a hyperparameter search early."""

    monitor: Text = Field(description="The metric that is compared between jobs.")
    study: Text | None = Field(description="Set by hydra/sweeper=optuna.")
    trial: FromZero | None = Field(description="Number of the trial; set by hydra/sweeper=optuna.")
    pruner: Literal["none", "median", "halving"] = Field(
        description="median prunes a job that is worse than half of the others at the same validation."
    )
    warmup: FromZero = Field(description="Validations of a job before it may be pruned.")
    startup: FromZero = Field(description="Finished jobs before any is pruned.")


class Progress(Callback):
    """The progress bar."""

    refresh_rate: FromZero = Field(description="Optimizer steps between two updates of the bar; 0 turns it off.")
    leave: bool = Field(description="Keep the finished bar on the screen.")


class Unfreezing(Callback):
    """Unfreezes blocks on the schedule of peft=unfreeze."""

    schedule: list[Any] | None = Field(description="The schedule of peft=unfreeze; null is off.")
    unit: Literal["epoch", "step"] | None = Field(description="What the schedule counts.")


KNOWN: dict[str, type[Callback]] = {
    "llmft.callbacks.gradient_clipping.GradientClipping": GradientClipping,
    "llmft.callbacks.nan_guard.NanGuard": NanGuard,
    "llmft.callbacks.samples.Samples": Samples,
    "llmft.callbacks.generated.GenerationMetrics": GenerationMetrics,
    "llmft.callbacks.generated.Generated": GenerationMetrics,  # its name in older runs
    "llmft.callbacks.early_stopping.EarlyStopping": EarlyStopping,
    "llmft.callbacks.checkpoints.Checkpoints": Checkpoints,
    "llmft.callbacks.pruning.Pruning": Pruning,
    "llmft.callbacks.progress.Progress": Progress,
    "llmft.callbacks.unfreezing.Unfreezing": Unfreezing,
}


def _kind(node: Any) -> str:
    """The class of a callback section, by its target; those of other packages have no further schema."""
    target = node.get("_target_") if isinstance(node, dict) else None
    return f"<{KNOWN[target].__name__}>" if target in KNOWN else "<Callback>"


AnyCallback = Annotated[
    Annotated[Callback, Tag("<Callback>")]
    | Annotated[GradientClipping, Tag("<GradientClipping>")]
    | Annotated[NanGuard, Tag("<NanGuard>")]
    | Annotated[Samples, Tag("<Samples>")]
    | Annotated[GenerationMetrics, Tag("<GenerationMetrics>")]
    | Annotated[EarlyStopping, Tag("<EarlyStopping>")]
    | Annotated[Checkpoints, Tag("<Checkpoints>")]
    | Annotated[Pruning, Tag("<Pruning>")]
    | Annotated[Progress, Tag("<Progress>")]
    | Annotated[Unfreezing, Tag("<Unfreezing>")],
    Discriminator(_kind),
]

Callbacks = dict[str, AnyCallback | None]


class Logger(TargetSection):
    """A logger of Lightning; further keys are arguments of its class."""


Loggers = dict[str, Logger | None]


@rule("callbacks.early_stopping.patience", "data.split.val", "data.val_path")
def _early_stopping(callbacks: Callbacks, data: Data) -> Faults:
    stopping = callbacks.get("early_stopping")
    validates = data.split.val or data.val_path is not None
    if isinstance(stopping, EarlyStopping) and stopping.patience is not None and not validates:
        yield f"callbacks.early_stopping.patience={stopping.patience}: needs a validation set, but data.split.val is 0"


@rule("objective", "callbacks", "evaluate.in_training", "data.extra_val", "data.sets")
def _monitored_metrics(objective: str, callbacks: Callbacks, evaluate: Evaluate, data: Data) -> Faults:
    monitored = {"objective": objective}
    for name, callback in callbacks.items():
        if isinstance(callback, EarlyStopping | Checkpoints) and callback.monitor != objective:
            monitored[f"callbacks.{name}.monitor"] = callback.monitor
    own = any(c is not None and not c.target.startswith("llmft.") for c in callbacks.values())
    extra = [f"val/{name}/{score}" for name in extra_val_names(data) for score in ("loss", "perplexity")]
    for key, metric in monitored.items():
        yield from _unlogged(key, metric, extra, generated=evaluate.in_training, own=own)


def _unlogged(key: str, metric: str, extra: Sequence[str], *, generated: bool, own: bool) -> Iterator[str]:
    logged = [*(SCORES if generated else SCORES[:2]), *extra, *TRAINED]
    if not metric.startswith(("val/", "train/")):
        yield f"{key}={metric}: must be a logged metric, val/... or train/...; logged are {', '.join(logged)}"
    elif metric in SCORES and metric not in logged:
        yield f"{key}={metric}: is only logged with evaluate.in_training=true"
    elif metric not in logged and not own:  # a user's callback may log anything
        yield f"{key}={metric}: no such metric.{did_you_mean(metric, [*SCORES, *extra, *TRAINED])} Logged are {', '.join(logged)}"
