"""Schema of the commands: their sections and top-level keys."""

from typing import Annotated, Literal, TypeVar

from pydantic import Field

from llmft.config.schema.callbacks import Callback, Callbacks, Checkpoints, Loggers
from llmft.config.schema.command import Command
from llmft.config.schema.data import AnyData
from llmft.config.schema.evaluation import Evaluate, Report
from llmft.config.schema.export import ExportConfig
from llmft.config.schema.generation import Generation
from llmft.config.schema.judge import AnyJudge
from llmft.config.schema.model import Model, Performance, Prompt
from llmft.config.schema.peft import AnyPeft
from llmft.config.schema.prove import Prove
from llmft.config.schema.rules import Faults, rule
from llmft.config.schema.section import Section
from llmft.config.schema.serving import Chat, Safety, Serve
from llmft.config.schema.trainer import Optim, Scheduler, Trainer
from llmft.config.schema.types import (
    Count,
    Files,
    FromZero,
    Must,
    Positive,
    Seed,
    Size,
    Text,
)

TextOrJson = Literal["text", "json"]
RUN = (
    "A run directory, latest (the newest in outputs/) or an exported folder; its own model, prompt and generation settings are "
    "used."
)
SYSTEM = "A system prompt instead of the run's own."
AnyText = Annotated[str, Must("a string")]
C = TypeVar("C", bound=Callback)


class PreviewKeys(Section):
    """What ``preview`` shows."""

    rows: Count | None = Field(description="Show the first N kept rows; null for all.")
    ids: bool = Field(description="Show the tokens with their ids too.")


class EstimateKeys(Section):
    """How ``estimate`` measures."""

    probe: bool = Field(description="Load the model and take a few real steps: measured time and memory.")
    probe_steps: Count = Field(description="Timed optimizer steps, after a warm-up step.")
    gpu_gib: Positive | None = Field(
        description="Estimate for a GPU with this much free memory, in GiB, here or not; null is this machine."
    )


class ReplayKeys(Section):
    """What ``replay`` shows."""

    modules: Count = Field(description="How many modules and gradients to show.")


class RestoreKeys(Section):
    """Limits beyond which ``restore`` refuses an archive."""

    max_files: Count = Field(description="Maximum number of files.")
    max_size: Size = Field(description="Maximum total size of the files, unpacked.")
    max_ratio: Positive = Field(description="Maximum number of unpacked bytes per byte of the archive.")


class OtherData(Section):
    """Other data for ``evaluate``."""

    path: Files = Field(description="Other data of the same format, all of it test data; null is the run's own.")
    limit: Count | None = Field(description="The first N good rows of data.path.")


class TrainConfig(Command):
    """Fine-tune a model, and write a run directory."""

    writes = ("resume",)

    model: Model
    data: AnyData
    peft: AnyPeft
    prompt: Prompt
    optim: Optim
    scheduler: Scheduler
    trainer: Trainer
    generation: Generation
    judge: AnyJudge
    logger: Loggers
    callbacks: Callbacks
    evaluate: Evaluate
    report: Report
    prove: Prove
    seed: Seed = Field(description="Seed of initial adapter weights, data order, dropout, splits and sampling.")
    performance: Performance = Field(
        description="auto: the fastest settings for this machine that compute the same, each logged; plain: the reference to "
        "compare with."
    )
    objective: Text = Field(
        description="The metric that selects the best checkpoint, and that a sweep optimizes: any logged metric, by its value "
        "at each validation; val/bleu, ... with evaluate.in_training=true."
    )
    baseline: bool = Field(description="Evaluate the untrained model first.")
    questions: FromZero = Field(description="Test questions answered before and after training, for the summary table.")
    resume: Text | None = Field(
        description="A run directory, or latest: resume it where it was interrupted, or train it for longer (trainer.max_epochs)."
    )
    output_dir: Text = Field(description="The run directory.")
    show_traceback: bool = Field(description="Show Python's traceback for user errors too.")

    def monitored(self) -> tuple[str, str]:
        """The metric that selects the best checkpoint, and its mode."""
        checkpoints = self.callback(Checkpoints)
        return (checkpoints.monitor, checkpoints.mode) if checkpoints else (self.objective, "auto")

    def callback(self, kind: type[C]) -> C | None:
        """The section of the first callback of a kind, such as ``Samples``; None without one."""
        return next((node for node in self.callbacks.values() if isinstance(node, kind)), None)


class EstimateConfig(TrainConfig):
    """Estimate memory, steps and time of a training before its model is loaded."""

    writes = ()

    format: TextOrJson = Field(description="Output format.")
    estimate: EstimateKeys


class ProveConfig(TrainConfig):
    """Compute the first optimizer steps of a training again, and compare."""

    writes = ()

    format: TextOrJson = Field(description="Output format.")


class PreviewConfig(Command):
    """Show prompts, tokens and labels of the data, without loading a model."""

    model: Model
    data: AnyData
    prompt: Prompt
    seed: Seed = Field(description="Seed of the splits.")
    format: TextOrJson = Field(description="Output format.")
    preview: PreviewKeys


class RunOrModel(Command):
    """Keys of commands that load a run, or a plain model."""

    model: Model
    prompt: Prompt
    generation: Generation
    seed: Seed = Field(description="Seed of the sampling.")
    run: Text | None = Field(description=RUN)
    system: Text | None = Field(description=SYSTEM)


class AnswerConfig(RunOrModel):
    """Answer a question, or every row of a file, with a run or a model."""

    writes = ("output",)

    question: AnyText | int | float | None = Field(description="One question.")
    input: Text | None = Field(
        description="Many questions: a .jsonl, .json, .csv or .tsv file with question (or instruction, or messages), input, "
        "system and id in each row; .txt with one per line; - is standard input."
    )
    input_format: Literal["txt", "jsonl", "csv"] = Field(description="Format of standard input.")
    questions: Annotated[Literal["samples"] | None, Must("samples (five built-in questions) or null")] = Field(
        description="samples: five built-in questions of the run's data set."
    )
    compare: bool = Field(description="Add the answers of the run's base model.")
    output: Text | None = Field(
        description="A .jsonl, .csv or .txt file; an existing .jsonl or .csv file is resumed. Without it answers are printed."
    )
    format: TextOrJson = Field(description="How answers are printed.")


class ChatConfig(RunOrModel):
    """Talk to a run or a model in the terminal."""

    chat: Chat


class ServeConfig(RunOrModel):
    """Serve an OpenAI-compatible HTTP API and a chat page."""

    safety: Safety
    serve: Serve
    system: Text | None = Field(
        description="A system prompt for conversations that have none, instead of the run's own."
    )


class EvaluateConfig(Command):
    """Evaluate a run and its base model on the test set."""

    writes = ("run", "input", "output")

    generation: Generation
    judge: AnyJudge
    evaluate: Evaluate
    report: Report
    seed: Seed = Field(description="Seed of sampling and bootstrap.")
    run: Text | None = Field(
        description="A run directory, latest (the newest in outputs/) or an exported folder; its own data, model, prompt and "
        "generation settings are used."
    )
    rows_of: Text | None = Field(
        description="The run whose rows an exported folder (run=EXPORTED) is scored on; null finds it in outputs/."
    )
    input: Text | None = Field(
        description="predictions.jsonl of any run, or rows of instruction, input, output and model_response."
    )
    output: Text | None = Field(
        description="A .jsonl file for the scored predictions; without it those on a run's own data go to the run, others are "
        "not kept."
    )
    format: TextOrJson = Field(description="Output format.")
    suite: Annotated[Text | list[Text] | None, Must("task names, or null")] = Field(
        description="Tasks of lm-evaluation-harness (extra llmft[lm-eval]) to score too, separated by commas; with "
        "evaluate.rows=0 they are added to the scores that the run has."
    )
    suite_path: Text | None = Field(
        description="A folder of task files (*.yaml) of your own, with data files relative to them."
    )
    suite_num_fewshot: FromZero | None = Field(
        description="Examples in the prompts of suite; null is each task's own number."
    )
    suite_limit: Count | None = Field(description="Only the first N rows of each task; null for all.")
    suite_chat_template: bool = Field(
        description="Put the prompts of suite into the run's prompt template, with its system prompt; false: plain text, as most "
        "published scores."
    )
    suite_batch_size: Count = Field(description="Rows per batch of suite.")
    data: OtherData

    @property
    def suites(self) -> list[str]:
        """The names in ``suite``, each once."""
        names = self.suite if isinstance(self.suite, list) else (self.suite or "").split(",")
        return list(dict.fromkeys(name.strip() for name in names if name.strip()))


class ReportConfig(Command):
    """Write a run's report, or the leaderboard of many runs."""

    writes = ("run", "runs")

    report: Report
    run: Text | None = Field(description="A run directory, or latest; report.html and report/ are written into it.")
    runs: Text | None = Field(description="A folder of runs; leaderboard.html, .md, .csv and .png are written into it.")


class ReplayConfig(Command):
    """Run the examples of the step again at which a guard halted a training."""

    run: Text | None = Field(description="A run directory with halt/, or latest.")
    format: TextOrJson = Field(description="Output format.")
    replay: ReplayKeys


class RestoreConfig(Command):
    """Unpack an archive of ``export zip=true`` safely."""

    writes = ("to",)

    archive: Text | None = Field(description="A .zip file.")
    to: Text | None = Field(description="A folder that does not exist yet.")
    restore: RestoreKeys


class SchemaConfig(Command):
    """Write JSON Schemas of the YAML files, with which editors complete and check them."""

    writes = ("to",)

    to: Text | None = Field(description="A folder; schemas that it already holds are replaced.")


COMMANDS: dict[str, type[Command]] = {
    "train": TrainConfig,
    "preview": PreviewConfig,
    "estimate": EstimateConfig,
    "prove": ProveConfig,
    "answer": AnswerConfig,
    "chat": ChatConfig,
    "serve": ServeConfig,
    "evaluate": EvaluateConfig,
    "report": ReportConfig,
    "export": ExportConfig,
    "replay": ReplayConfig,
    "restore": RestoreConfig,
    "schema": SchemaConfig,
}


@rule("estimate.gpu_gib", "estimate.probe", "trainer.accelerator")
def _gpu_that_is_not_here(estimate: EstimateKeys, trainer: Trainer) -> Faults:
    if estimate.gpu_gib is None:
        return
    asked, accelerator = f"estimate.gpu_gib={estimate.gpu_gib:g}", trainer.accelerator
    if estimate.probe:
        yield f"{asked}: estimate.probe=true measures this machine; leave out one of them"
    if accelerator not in ("auto", "gpu", "cuda"):
        yield f"{asked}: trainer.accelerator={accelerator} uses no such GPU; use trainer=gpu"


@rule("compare", "run", "question")
def _compared(compare: bool, run: str | None, question: object) -> Faults:  # noqa: ARG001 (a key of `answer`)
    if compare and run is None:
        yield "compare=true: compares a run with its base model; pass run=RUN"


@rule("suite", "suite_path", "run")
def _suite(suite: object, suite_path: str | None, run: str | None) -> Faults:
    if suite and run is None:
        yield "suite: is run on a model; pass run=RUN"
    if suite_path and not suite:
        yield f"suite_path={suite_path}: has the files of tasks; name those to run with suite=TASK,TASK"
