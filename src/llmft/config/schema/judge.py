"""Schema of ``judge``."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from llmft.config.schema.evaluation import Evaluate
from llmft.config.schema.model import Model
from llmft.config.schema.rules import Faults, rule
from llmft.config.schema.section import Absent, Section, absent
from llmft.config.schema.trainer import Trainer
from llmft.config.schema.types import Count, EnvironmentVariable, Must, NotNegative, Positive, Seeds, Text


class NoJudge(Section):
    """No judge."""

    kind: Literal["none"] = Field(description="Kind of judge.")


class Judge(Section):
    """A language model that scores answers."""

    kind: Literal["none", "model", "ollama", "openai"] = Field(description="Kind of judge.")
    mode: Literal["score", "pairwise"] = Field(
        description="score (0 to 100), or pairwise (base against tuned, in both orders)."
    )
    models: Annotated[list[Text], Field(min_length=1), Must("a list of names")] = Field(
        description="Names of the judging models; several are averaged."
    )
    seeds: Seeds = Field(description="Seeds of the judge; several are averaged.")
    max_new_tokens: Count = Field(description="Maximum tokens of a reply, which should be an integer.")
    max_characters: Count = Field(
        description="Characters of each text in the judge's prompt; longer ones are truncated, with a warning."
    )
    prompt: Text = Field(description="The judge's prompt for a score.")
    pairwise_prompt: Text = Field(description="The judge's prompt for a comparison.")


class ModelJudge(Judge):
    """A local model run by llmft, offline."""

    model: Model = Field(description="The judging model.")


class HttpJudge(Judge):
    """A server with Ollama's or OpenAI's API."""

    url: Text = Field(description="Base URL of the server.")
    allow_private: bool = Field(
        description="Allow addresses of a private network (10.0.0.0/8, 192.168.0.0/16, ...); this machine is always allowed."
    )
    concurrency: Count = Field(description="Parallel requests.")
    timeout: Positive = Field(description="Seconds for a complete reply.")
    attempts: Count = Field(description="Attempts for a request that times out or meets a busy server.")
    backoff: NotNegative = Field(
        description="Seconds before the second attempt; twice as long before each further one."
    )
    max_bytes: Count = Field(description="Maximum size of a reply.")
    key_env: Absent[EnvironmentVariable] = absent(
        "Environment variable with the API key; a server on this machine needs none."
    )


def _kind(judge: Any) -> str:
    """The class of a judge section: by the keys that only one kind has."""
    keys = judge if isinstance(judge, dict) else {}
    return "<model>" if "model" in keys else "<http>" if "url" in keys else "<judge>" if "mode" in keys else "<none>"


AnyJudge = Annotated[
    Annotated[NoJudge, Tag("<none>")]
    | Annotated[Judge, Tag("<judge>")]
    | Annotated[ModelJudge, Tag("<model>")]
    | Annotated[HttpJudge, Tag("<http>")],
    Discriminator(_kind),
]


@rule("judge.kind", "evaluate.rows")
def _judged_rows(judge: Judge | NoJudge, evaluate: Evaluate) -> Faults:
    if judge.kind != "none" and evaluate.rows == 0:
        yield f"judge={judge.kind}: needs answers to judge, but evaluate.rows is 0"


@rule("judge.kind", "trainer.fast_dev_run")
def _judge_in_fast_dev_run(judge: Judge | NoJudge, trainer: Trainer) -> Faults:
    if judge.kind != "none" and trainer.fast_dev_run:
        yield f"judge={judge.kind}: needs answers to judge, but trainer.fast_dev_run generates none"
