"""Run a model on test examples: generate answers, and compute the loss of the references."""

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

from llmft.data.eval_rows import EvalRows
from llmft.data.tokenization.codec import EncodedExample
from llmft.evaluation.partial import PartialAnswers
from llmft.evaluation.row_loss import row_losses
from llmft.generation.generator import Answer, Generator
from llmft.generation.runtime_generator import RuntimeGenerator
from llmft.metrics.predictions import Prediction
from llmft.models.forward import Forward
from llmft.utils.progress import ProgressLine

log = logging.getLogger(__name__)


class RowResult(NamedTuple):
    """A model's answer to an example, and the loss of its reference in nats, summed over ``tokens`` supervised tokens."""

    answer: Answer
    nats: float
    tokens: int


def evaluate_rows(
    forward: Forward,
    generator: Generator,
    rows: Sequence[EncodedExample],
    batch_tokens: int,
    *,
    which: str = "tuned",
    partial: PartialAnswers | None = None,
) -> list[RowResult]:
    """Generate an answer and compute the reference's loss for each example, in order, with a line of progress.

    Generation starts from the same prompt ids as in training, including truncation.

    Args:
        forward: The model.
        generator: Of the same model.
        rows: Encoded examples.
        batch_tokens: Token budget of a batch.
        which: ``tuned`` or ``base``.
        partial: Keeps the answers of each batch, and has those of an evaluation that was stopped.
    """
    generator = generator.with_settings(batch_tokens=batch_tokens)
    answers = generate(generator, [row.input_ids[: row.prompt_length] for row in rows], which, partial)
    losses = row_losses(forward, rows, generator.codec.tokenizer.pad_token_id, batch_tokens)
    return [RowResult(answer, *loss) for answer, loss in zip(answers, losses, strict=True)]


def generate(
    generator: Generator | RuntimeGenerator,
    prompts: Sequence[Sequence[int]],
    which: str,
    partial: PartialAnswers | None = None,
) -> list[Answer]:
    """An answer for each prompt's ids, in order, with a line of progress; the other arguments as of ``evaluate_rows``."""
    keys = partial.keys(which, generator.given, prompts) if partial else []
    known = {row: partial.kept[key] for row, key in enumerate(keys) if key in partial.kept} if partial else {}
    if known:
        log.info("resuming: %d of %d answers of the %s model exist", len(known), len(prompts), which)
    with ProgressLine(f"{which} model", len(prompts), len(known), unit="answers", leave=False) as line:

        def finished(batch: list[int], answers: list[Answer]) -> None:
            if partial:
                partial.add([keys[row] for row in batch], answers)
            line.update(line.done + sum(row not in known for row in batch))

        return generator.continued(prompts, known=known, finished=finished)


def to_predictions(
    rows: EvalRows, codec: Any, tuned: Sequence[RowResult], base: Sequence[RowResult] | None
) -> list[Prediction]:
    """Build one unscored prediction per example."""
    found, references = [], rows.references(codec)
    for i, (example, encoded, result) in enumerate(zip(rows.examples, rows.encoded, tuned, strict=True)):
        prompt = codec.tokenizer.decode(encoded.input_ids[: encoded.prompt_length], clean_up_tokenization_spaces=False)
        prediction = Prediction(
            id=example.id,
            prompt=prompt,
            reference=references[i],
            answer=result.answer.text,
            question=example.context[-1].message()["content"],
            place=example.place,
            ended=result.answer.ended,
            supervised=result.tokens,
            nats=result.nats,
            in_train=rows.in_train[i],
            identity=rows.identities[i],
            cut=encoded.cut,
        )
        if base is not None:
            prediction.base_answer, prediction.base_ended = base[i].answer.text, base[i].answer.ended
            prediction.base_nats = base[i].nats
        found.append(prediction)
    return found
