"""A model and test rows -> what it says about them, tuned and base."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import islice
from typing import Any, NamedTuple

import torch

from llmft.data.base import InstructionDataModule
from llmft.encoding import Encoded
from llmft.evaluation.losses import row_losses
from llmft.evaluation.predictions import Prediction
from llmft.generation import Answer, Generator
from llmft.models.base import InstructionModule
from llmft.records import Example


class Told(NamedTuple):
    """A model's answer to a row, and its loss on the reference: nats, summed over ``tokens`` supervised tokens."""

    answer: Answer
    nats: float
    tokens: int


class AskedRows(NamedTuple):
    """Rows to be asked: ``split`` they come from, and ``total`` of that split."""

    split: str
    total: int
    examples: list[Example]
    encoded: list[Encoded]


def asked_rows(data: InstructionDataModule, limit: int | None, split: str) -> AskedRows:
    """The first rows of a split; of ``val``, or else ``train``, where that has none."""
    split = next(name for name in (split, "val", "train") if data.encoded[name])
    # of a conversation that became several rows, the last: its answer is the example's
    encoded = list({row.place: row for row in islice(data.encoded[split], limit)}.values())
    wanted = {row.place for row in encoded}
    examples = {example.place: example for example in data.examples if example.place in wanted}
    return AskedRows(split, len(data.encoded[split]), [examples[row.place] for row in encoded], encoded)


def ask(module: InstructionModule, generator: Generator, rows: Sequence[Encoded], batch_tokens: int) -> list[Told]:
    """Answers and losses, in the order of the rows.

    Generation starts from the very ids that the row was (or would have been) trained with, a trimmed prompt included.
    """
    generator = generator.with_settings(batch_tokens=batch_tokens)
    answers = generator.continued([row.input_ids[: row.prompt_length] for row in rows])
    losses = row_losses(module, rows, generator.codec.tokenizer.pad_token_id, batch_tokens)
    return [Told(answer, *loss) for answer, loss in zip(answers, losses, strict=True)]


@contextmanager
def base_of(model: Any) -> Iterator[None]:
    """The model as it was before training: the same weights in memory, with the adapter switched off."""
    with model.disable_adapter() if has_adapter(model) else nullcontext():
        yield


def has_adapter(model: Any) -> bool:
    """Whether what was trained can be switched off."""
    return hasattr(model, "disable_adapter")


@contextmanager
def on_device(model: torch.nn.Module, device: Any) -> Iterator[None]:
    """The model on a device for as long as it is asked."""
    before = next(model.parameters()).device
    model.to(device)
    try:
        yield
    finally:
        model.to(before)


def predictions(rows: AskedRows, codec: Any, tuned: Sequence[Told], base: Sequence[Told] | None) -> list[Prediction]:
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
