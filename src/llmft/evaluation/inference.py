"""Run a model on test examples: generate answers, and compute the loss of the references."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from llmft.data.eval_rows import EvalRows
from llmft.data.tokenization.codec import EncodedExample
from llmft.evaluation.row_loss import row_losses
from llmft.generation.generator import Answer, Generator
from llmft.metrics.predictions import Prediction
from llmft.models.forward import Forward


class RowResult(NamedTuple):
    """A model's answer to an example, and the loss of its reference in nats, summed over ``tokens`` supervised tokens."""

    answer: Answer
    nats: float
    tokens: int


def evaluate_rows(
    forward: Forward, generator: Generator, rows: Sequence[EncodedExample], batch_tokens: int
) -> list[RowResult]:
    """Generate an answer and compute the reference's loss for each example, in order.

    Generation starts from the same prompt ids as in training, including truncation.
    """
    generator = generator.with_settings(batch_tokens=batch_tokens)
    answers = generator.continued([row.input_ids[: row.prompt_length] for row in rows])
    losses = row_losses(forward, rows, generator.codec.tokenizer.pad_token_id, batch_tokens)
    return [RowResult(answer, *loss) for answer, loss in zip(answers, losses, strict=True)]


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
