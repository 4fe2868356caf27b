"""A model and test rows -> what it says about them, tuned and base."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from llmft.data.eval_rows import EvalRows
from llmft.data.tokenization.codec import EncodedExample
from llmft.evaluation.row_loss import row_losses
from llmft.generation.generator import Answer, Generator
from llmft.metrics.predictions import Prediction
from llmft.models.forward import Forward


class RowResult(NamedTuple):
    """A model's answer to a row, and its loss on the reference: nats, summed over ``tokens`` supervised tokens."""

    answer: Answer
    nats: float
    tokens: int


def evaluate_rows(
    forward: Forward, generator: Generator, rows: Sequence[EncodedExample], batch_tokens: int
) -> list[RowResult]:
    """Answers and losses, in the order of the rows.

    Generation starts from the very ids that the row was (or would have been) trained with, a trimmed prompt included.
    """
    generator = generator.with_settings(batch_tokens=batch_tokens)
    answers = generator.continued([row.input_ids[: row.prompt_length] for row in rows])
    losses = row_losses(forward, rows, generator.codec.tokenizer.pad_token_id, batch_tokens)
    return [RowResult(answer, *loss) for answer, loss in zip(answers, losses, strict=True)]


def to_predictions(
    rows: EvalRows, codec: Any, tuned: Sequence[RowResult], base: Sequence[RowResult] | None
) -> list[Prediction]:
    """One per row, not scored yet."""
    found = []
    for i, (example, encoded, told) in enumerate(zip(rows.examples, rows.encoded, tuned, strict=True)):
        prompt = codec.tokenizer.decode(encoded.input_ids[: encoded.prompt_length], clean_up_tokenization_spaces=False)
        prediction = Prediction(
            id=example.id,
            prompt=prompt,
            reference=example.answer,
            answer=told.answer.text,
            question=example.context[-1].message()["content"],
            place=example.place,
            ended=told.answer.ended,
            supervised=told.tokens,
            nats=told.nats,
        )
        if base is not None:
            prediction.base_answer, prediction.base_ended = base[i].answer.text, base[i].answer.ended
            prediction.base_nats = base[i].nats
        found.append(prediction)
    return found
