"""Schema of ``data``: sources, truncation, splits and batching."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag

from llmft.config.schema.file_format import Delimiter, Encoding
from llmft.config.schema.model import Model
from llmft.config.schema.rules import Faults, rule
from llmft.config.schema.section import Section, TargetSection
from llmft.config.schema.trainer import Trainer
from llmft.config.schema.types import (
    Count,
    Digest,
    Files,
    Fraction,
    FromZero,
    Must,
    Name,
    Names,
    NotNegative,
    PositiveFraction,
    Seed,
    Text,
)

SplitBy = Annotated[
    str,
    Field(pattern=r"^(prompt|row|shuffle|position|(group|column):.+)$"),
    Must("prompt, row, group:NAME, column:NAME, shuffle or position"),
]


SetName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,60}$"), Must("a name of letters, digits, - and _")]


class Split(Section):
    """Fractions of the examples."""

    train: Fraction | None = Field(description="Fraction for training; null takes the rest.")
    val: Fraction = Field(description="Fraction for validation; 0 for none.")
    test: Fraction = Field(description="Fraction for the evaluation at the end; 0 evaluates on the validation set.")


class Question(Section):
    """A sample question of a data set."""

    question: Text = Field(description="The question or instruction.")
    input: Annotated[str, Must("a string")] | None = Field(None, description="The input that an instruction refers to.")
    system: Text | None = Field(None, description="A system prompt for this question.")


class MetricTarget(TargetSection):
    """A metric of the user's own."""


class Data(TargetSection):
    """A data set: its source, how its rows are split and truncated, and how its examples are batched."""

    model_config = ConfigDict(extra="forbid")

    name: Name = Field(description="Name of the data set; part of the run directory's name.")
    path: Files = Field(
        description="A file, folder, pattern or list of files; a Hub id; an https URL; or sample (the shipped rows)."
    )
    sha256: Digest | None = Field(description="SHA-256 that the file must have; required for a URL.")
    revision: Text | None = Field(description="Branch, tag or commit of a Hub data set.")
    subset: Text | None = Field(description="Subset (configuration) of a Hub data set.")
    hub_split: Text = Field(description="Split of a Hub data set that is read.")
    encoding: Encoding | None = Field(
        description="Encoding of the text files, such as utf-8, utf-16 or cp1252; null is what the content of a file shows."
    )
    delimiter: Delimiter | None = Field(
        description="What separates the fields of CSV and TSV files: one character, or comma, semicolon, tab or pipe; null is "
        "what the content of a file shows."
    )
    sheet: Text | None = Field(description="Sheet of .xlsx files; null is the first one with rows.")
    system: Text | None = Field(description="A system prompt for rows that have none.")
    prompt: Text | None = Field(description="The prompt template of the data set, which prompt=auto uses first.")
    limit: Count | None = Field(description="Use only the first N good rows.")
    batch_size: Count = Field(description="Examples per batch and process.")
    max_prompt_tokens: Count = Field(description="Token budget of the prompt.")
    max_answer_tokens: Count = Field(description="Token budget of the answer, including the stop token.")
    too_long: Literal["error", "drop", "trim_prompt", "trim_answer"] = Field(
        description="What happens to a row that exceeds a token budget."
    )
    invalid: Literal["error", "drop"] = Field(description="What happens to a row with a missing or invalid field.")
    coerce: bool = Field(description="Read numbers and booleans as text where text is needed, such as an answer.")
    duplicates: Literal["keep", "drop", "error"] = Field(description="What happens to a repeated row.")
    leakage: Literal["warn", "drop", "error"] = Field(
        description="What happens to prompts of val or test that occur in train."
    )
    near_duplicates: Literal["off", "report", "drop", "error"] = Field(
        description="What happens to prompts of val or test that are nearly one in train (similar word 5-grams)."
    )
    cache: Annotated[Text | Literal[False] | None, Must("off, a folder, or null for llmft's own")] = Field(
        description="Where tokenized examples are cached: off, a folder, or null for llmft's cache folder."
    )
    processes: Count | None = Field(description="Processes that tokenize; null uses one per core for large data sets.")
    split: Split = Field(
        description="Fractions of the examples; null for train is the rest; without test, val is used for the evaluation."
    )
    split_by: SplitBy = Field(
        description="What decides an example's split: its prompt, its prompt and answer (row), a field (group:NAME keeps "
        "equal values together, column:NAME names the split), a shuffle, or its position."
    )
    val_path: Files | None = Field(description="A file, folder, pattern or list of files with the validation rows.")
    test_path: Files | None = Field(description="A file, folder, pattern or list of files with the test rows.")
    extra_val: Annotated[dict[SetName, Files], Must("a mapping of names (of letters, digits, - and _) to files")] = (
        Field(
            description="Further validation files by name, each with its own val/NAME/loss (data.extra_val.NAME=FILE)."
        )
    )
    train_fraction: PositiveFraction = Field(
        description="Train on this fraction of the training examples, each repeated so that an epoch has as many steps as "
        "with all of them; a smaller fraction is part of a larger one (experiment=learning_curve)."
    )
    shuffle: bool = Field(description="Shuffle the training examples in every epoch.")
    batching: Literal["rows", "grouped", "tokens", "packed"] = Field(
        description="Batches of examples as they come (rows), of similar length (grouped), within a token budget "
        "(tokens), or several examples per sequence (packed)."
    )
    tokens_per_batch: Count = Field(
        description="With batching=tokens: examples times the longest one, source plus target; batch_size is not used."
    )
    pack_tokens: Count | None = Field(
        description="With batching=packed: tokens per sequence (seq2seq: per side); null uses the budgets of an example."
    )
    num_workers: FromZero = Field(description="Processes that load batches; with streaming, that tokenize ahead.")
    streaming: bool = Field(
        description="Train from the files as they are read, without tokenizing everything first; needs trainer.max_steps."
    )
    stream_buffer: Count = Field(description="With streaming: size of the shuffle buffer, in rows.")
    stream_held_out: Count = Field(
        description="With streaming: size of val and of test, the first rows of their fractions (split by a hash of the prompt)."
    )
    train_on: Literal["answer", "all"] = Field(description="Compute the loss on the answer only, or on the prompt too.")
    train_on_turns: Literal["last", "all"] = Field(
        description="Train on the last answer of a conversation, or on every assistant turn with its stop token."
    )
    reasoning: Literal["template", "keep", "drop"] = Field(
        description="Reasoning of a trained turn: as the chat template writes it, kept in any case, or dropped."
    )
    metrics: Annotated[
        list[Literal["keywords", "exact_match", "f1", "bleu", "chrf", "rougeL"] | MetricTarget],
        Must("a list of keywords, exact_match, f1, bleu, chrf, rougeL and {_target_: yourpackage.your_metric}"),
    ] = Field(
        description="Metrics of this data set, of which the first leads the verdict: a built-in one, keywords, or "
        "{_target_: yourpackage.your_metric}, which returns a Metric."
    )
    notice: Text | None = Field(
        description="A sentence for the model card and the chat page, such as what the model must not be used as."
    )
    fields: Names = Field(
        description="Fields by which a row of this data set is recognized in a file that another one reads."
    )
    questions: Annotated[list[Question], Must("a list of {question: ..., input: ..., system: ...}")] = Field(
        description="Sample questions of questions=samples: {question, input, system}; [] uses general ones."
    )
    seed: Seed = Field(description="Seed of the shuffle and of train_fraction.")
    split_seed: Seed = Field(description="Seed of the split; that of the data set unless set.")


class UserData(Data):
    """A data set of the user's own; further keys are arguments of its class."""

    model_config = ConfigDict(extra="allow")


class Columns(Section):
    """Field names of a file, by their meaning."""

    instruction: Text | None = Field(description="Flat rows: the instruction or question.")
    input: Text | None = Field(description="Flat rows: the input that the instruction refers to (may be empty).")
    output: Text | None = Field(description="Flat rows: the answer.")
    messages: Text | None = Field(description="Chat rows: the list of turns (role/content or from/value).")
    system: Text | None = Field(description="A system prompt (chat rows: the field system, unless named here).")
    history: Text | None = Field(description="Flat rows: earlier turns, a list of [question, answer] pairs.")
    reasoning: Text | None = Field(description="Flat rows: the reasoning before the answer.")
    tools: Text | None = Field(description="Chat rows: the schemas of the tools (the field tools, unless named here).")
    weight: Text | None = Field(
        description="Factor of the row in the loss; 0 is not trained (chat rows: the field weight, unless named here)."
    )
    id: Text | None = Field(description="An id of the row.")


class CustomData(Data):
    """Rows with any field names."""

    columns: Columns = Field(description="Names of the fields in your file.")


def _kind(data: Any) -> str:
    """The class of a data section: by its target, and by the keys that only one option has."""
    keys = data if isinstance(data, dict) else {}
    if not str(keys.get("_target_")).startswith("llmft.data."):
        return "<user>"
    return "<mix>" if "sets" in keys else "<custom>" if "columns" in keys else "<data>"


SingleData = Annotated[
    Annotated[Data, Tag("<data>")] | Annotated[CustomData, Tag("<custom>")] | Annotated[UserData, Tag("<user>")],
    Discriminator(_kind),
]


class MixData(Data):
    """Several data sets at once."""

    sets: dict[str, SingleData | None] = Field(
        description="The data sets by name, each a config of data=; null removes one."
    )
    weights: Annotated[dict[str, NotNegative], Must("a mapping of names to numbers of at least 0")] = Field(
        description="How often the examples of a set occur per epoch; 1 where a set is not named (+data.weights.NAME=0.5)."
    )


AnyData = Annotated[
    Annotated[Data, Tag("<data>")]
    | Annotated[CustomData, Tag("<custom>")]
    | Annotated[MixData, Tag("<mix>")]
    | Annotated[UserData, Tag("<user>")],
    Discriminator(_kind),
]


@rule("data.split.train", "data.split.val", "data.split.test")
def _fractions(data: Data) -> Faults:
    split = data.split
    if (split.train or 0) + split.val + split.test > 1 + 1e-9:
        shares = f"train {split.train}, val {split.val}, test {split.test}"
        yield f"data.split: the fractions add up to more than 1: {shares}; data.split.train=null takes the rest"


@rule("data.train_on", "model.family")
def _seq2seq_answers(data: Data, model: Model) -> Faults:
    if data.train_on == "all" and model.family == "seq2seq":
        yield "data.train_on=all: a seq2seq model can only train on the answer; use data.train_on=answer"


@rule("data.streaming", "trainer.max_steps")
def _stream(data: Data, trainer: Trainer) -> Faults:
    if data.streaming and trainer.max_steps == -1:
        yield "data.streaming=true: the length of an epoch is not known in advance; set trainer.max_steps"


@rule("data.streaming", "data.train_fraction")
def _streamed_fraction(data: Data) -> Faults:
    if data.streaming and data.train_fraction != 1:
        yield f"data.train_fraction={data.train_fraction}: a stream is not read to its end first; use data.streaming=false"


@rule("data.streaming", "data.sets")
def _streamed_mix(data: Data) -> Faults:
    if data.streaming and isinstance(data, MixData):
        yield "data.streaming=true: a mix of data sets cannot be streamed; use one data set, or streaming=false"


@rule("data.near_duplicates", "data.streaming")
def _streamed_near_duplicates(data: Data) -> Faults:
    if data.streaming and data.near_duplicates in ("drop", "error"):
        yield (
            f"data.near_duplicates={data.near_duplicates}: the rows of a stream are not known before the training; use off, "
            "or data.streaming=false"
        )


@rule("data.split_by", "data.streaming")
def _streamed_by_field(data: Data) -> Faults:
    if data.streaming and data.split_by.partition(":")[0] in ("row", "group", "column"):
        yield f"data.split_by={data.split_by}: a stream is split by a hash of the prompt; use data.split_by=prompt"


def extra_val_names(data: Data) -> list[str]:
    """The names of the validation sets of ``data.extra_val``, of all sets of a mix."""
    sets = [part for part in data.sets.values() if part] if isinstance(data, MixData) else []
    return sorted({name for part in (data, *sets) for name, path in part.extra_val.items() if path is not None})


@rule(
    "data.val_path",
    "data.test_path",
    "data.extra_val",
    "data.streaming",
    "data.split_by",
    "data.split.val",
    "data.split.test",
)
def _own_files(data: Data) -> Faults:
    given = [name for name in ("val_path", "test_path") if getattr(data, name) is not None]
    given += [f"extra_val.{name}" for name, path in data.extra_val.items() if path is not None]
    for name in given:
        if data.streaming:
            yield f"data.{name}: a stream takes its held-out rows from data.path; use data.streaming=false"
        elif isinstance(data, MixData):
            yield f"data.{name}: of a mix, each set has its own: data.sets.NAME.{name}"
    sets = [part for part in data.sets.values() if part] if isinstance(data, MixData) else [data]
    if data.split_by != "position" or all(part.val_path is None and part.test_path is None for part in sets):
        return
    # a mix has no val_path itself: its fractions count for all of its sets
    if fractions := [
        name for name in ("val", "test") if getattr(data, f"{name}_path") is None and getattr(data.split, name)
    ]:
        yield f"data.split_by=position: with files of held-out rows, set data.split.{fractions[0]}=0, or use data.split_by=prompt"


@rule("data.path", "data.split")
def _no_rows(data: Data) -> Faults:
    if data.path is None:
        yield "data.path=None: must be a string; data.path=sample for the shipped rows"


@rule("trainer.strategy", "data.batching", "model.family")
def _sharded_and_packed(trainer: Trainer, data: Data, model: Model) -> Faults:
    if trainer.strategy == "fsdp" and data.batching == "packed" and model.family == "seq2seq":
        yield "data.batching=packed: calls the encoder separately for a seq2seq model, which trainer=fsdp cannot; use tokens"
