"""Few-shot prompts: what the base model can do with a few training examples in its prompt, without any training."""

from collections.abc import Sequence
from typing import Any

from llmft.data.datamodule import InstructionDataModule
from llmft.data.messages import SYSTEM
from llmft.data.records import Example, Turn
from llmft.generation.generator import Answer
from llmft.metrics import bootstrap
from llmft.metrics.compare import metric_statistics
from llmft.metrics.metric import Metric, ScoredAnswer
from llmft.metrics.predictions import Prediction


def shown_examples(data: InstructionDataModule, number: int, split: str) -> list[Example]:
    """The first ``number`` examples of train; none if the scored rows are themselves of train, or of a stream."""
    if not number or split == "train" or data.streaming or not len(data.indices["train"]):
        return []
    return list(data.examples_of("train")[:number])


def few_shot_context(example: Example, shown: Sequence[Example]) -> tuple[Turn, ...]:
    """The context of an example, with others as earlier turns; its own system prompt stays first, theirs are left out."""
    system = tuple(turn for turn in example.context if turn.role in SYSTEM)
    earlier = [turn for other in shown for turn in (*other.context, other.reply) if turn.role not in SYSTEM]
    return (*system, *earlier, *(turn for turn in example.context if turn.role not in SYSTEM))


def add_few_shot(predictions: Sequence[Prediction], answers: Sequence[Answer]) -> None:
    """Add the base model's answers to few-shot prompts to the predictions of the same rows."""
    for prediction, answer in zip(predictions, answers, strict=True):
        prediction.few_shot_answer, prediction.few_shot_ended = answer.text, answer.ended


def few_shot_result(
    predictions: Sequence[Prediction], metrics: Sequence[Metric], shown: Sequence[Example], *, resamples: int, seed: int
) -> dict[str, Any]:
    """What ``evaluation.json`` holds: the places of the shown ``examples``, and the ``scores``.

    These are as of ``bootstrap.compare``, with the few-shot answers as those of the base; no loss, as nothing but answers is
    generated.
    """
    tuned = [prediction.tuned._replace(nats=None) for prediction in predictions]
    base = [ScoredAnswer(p.few_shot_answer or "", p.reference, p.few_shot_ended) for p in predictions]
    tables = [metric_statistics(metrics, rows) for rows in (tuned, base)]
    scores = bootstrap.compare(metrics, *tables, resamples=resamples, seed=seed)
    kept = {name: entry for name, entry in scores.items() if entry["tuned"] is not None}
    return {"examples": [example.place for example in shown], "scores": kept}
