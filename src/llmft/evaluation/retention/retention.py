"""Compare a tuned model with its base on general rows: loss of the references, KL divergence on the base's own answers."""

import logging
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch

from llmft.config.schema.evaluation import Evaluate
from llmft.data.tokenization.codec import IGNORED, Codec, EncodedExample
from llmft.evaluation.base_cache import BaseCache, base_ingredients
from llmft.evaluation.retention import result
from llmft.evaluation.retention.divergence import TopTokens, divergences, top_tokens
from llmft.evaluation.retention.rows import KEY, RetentionRow
from llmft.evaluation.row_loss import row_losses
from llmft.generation.generator import Generator
from llmft.generation.stream import Stream
from llmft.models.backbone.load import max_positions, needed_positions
from llmft.models.dtype import answering_precision, computing_in
from llmft.models.forward import Forward
from llmft.models.peft import trainable
from llmft.utils.device import on_device
from llmft.utils.errors import UserError

log = logging.getLogger(__name__)

# Max tokens of an answer of the base; the references of the shipped rows are shorter.
ANSWER_TOKENS = 32
GREEDY = {"max_new_tokens": ANSWER_TOKENS, "do_sample": False, "batch_size": 1, "seed": 0}


class BaseResult(NamedTuple):
    """What is kept of the base: losses of the references (nats, tokens), its answers, and their most probable tokens."""

    losses: list[tuple[float, int]]
    texts: list[str]
    answers: list[EncodedExample]
    top: list[TopTokens]


class Retention:
    """Measures a model and its base on the same general rows.

    Args:
        settings: The ``evaluate`` keys.
        rows: The general rows.
        forward: The model: the base before full fine-tuning, the tuned model afterwards; with an adapter it is both.
        codec: Of the run.
        precision: ``trainer.precision`` of the run.

    Raises:
        UserError: A row needs more positions than the model has.
    """

    def __init__(
        self,
        settings: Evaluate,
        rows: Sequence[RetentionRow],
        forward: Forward,
        codec: Codec,
        *,
        precision: str = "32-true",
    ) -> None:
        self.settings, self.rows, self.forward, self.codec = settings, rows, forward, codec
        self.precision = precision
        self.encoded = [_encoded(row, codec) for row in rows]
        self.base: BaseResult | None = None
        self.cache: BaseCache | None = None  # set in a sweep
        self._check_positions()

    def evaluate_base(self, device: Any, base: Forward | None = None) -> None:
        """Measure the base model.

        Args:
            device: To compute on.
            base: The base, if it is another model than ``forward`` (without its adapter).
        """
        forward = base or self.forward
        if self.cache is None:
            found = self._run_base(forward, device)
        else:
            precision = answering_precision(torch.device(device), self.precision, self.settings.dtype)
            settings = [GREEDY, self.settings.dtype, precision, self.settings.batch_tokens]
            decides = base_ingredients(forward, self.codec, self.encoded, settings, device)
            found = self.cache.get(
                f"retention of the base: {len(self.rows)} of {len(self.rows)} rows",
                decides,
                partial(self._run_base, forward, device),
            )
        answers = [with_answer(row, ids) for row, ids in zip(self.encoded, found["ids"], strict=True)]
        self.base = BaseResult(found["losses"], found["texts"], answers, [TopTokens(*both) for both in found["top"]])

    def _run_base(self, forward: Forward, device: Any) -> dict[str, Any]:
        """As ``BaseResult``, in plain values and tensors, with the ids of its answers."""
        log.info("retention: evaluating the base model on %d general rows", len(self.rows))
        with on_device(forward.model, device), self._computing(forward), trainable.base_of(forward.model):
            streams = self._answers(forward)
            ids = [stream.ids + [self.codec.stop_id] * (stream.reason == "stop") for stream in streams]
            answers = [with_answer(row, answer) for row, answer in zip(self.encoded, ids, strict=True)]
            top = [tuple(both) for both in top_tokens(forward, answers, *self._batching)]
            texts = [stream.text for stream in streams]
            return {"losses": self._losses(forward), "texts": texts, "ids": ids, "top": top}

    def evaluate_tuned(self, device: Any) -> dict[str, Any]:
        """Measure the tuned model, and its base if that is not done yet and it has an adapter.

        Returns:
            The ``retention`` entry of ``evaluation.json``.
        """
        started = time.perf_counter()
        if self.base is None:
            assert trainable.has_adapter(self.forward.model)
            self.evaluate_base(device)
        assert self.base is not None
        log.info("retention: evaluating the tuned model on %d general rows", len(self.rows))
        with on_device(self.forward.model, device), self._computing(self.forward):
            losses = self._losses(self.forward)
            kl = divergences(self.forward, self.base.answers, self.base.top, *self._batching)
            answered = self._answers(self.forward) if self.settings.retention_answers else None
        measured = [
            result.Measured(row.category, before, after, *row_kl, rest=float(top.rest.sum()))
            for row, before, after, row_kl, top in zip(
                self.rows, self.base.losses, losses, kl, self.base.top, strict=True
            )
        ]
        return {
            "source": self.settings.retention,
            **result.summarize(measured),
            "changed": None if answered is None else self._changed([stream.text for stream in answered]),
            "seconds": round(time.perf_counter() - started, 1),
        }

    @property
    def _batching(self) -> tuple[int, int]:
        return self.codec.tokenizer.pad_token_id, self.settings.batch_tokens

    def _computing(self, forward: Forward) -> AbstractContextManager[None]:
        return computing_in(forward.model, self.settings.dtype, self.precision)

    def _losses(self, forward: Forward) -> list[tuple[float, int]]:
        return row_losses(forward, self.encoded, *self._batching)

    def _answers(self, forward: Forward) -> list[Stream]:
        """The greedy answer to each row."""
        prompts = [row.input_ids[: row.prompt_length] for row in self.encoded]
        generator = Generator(forward.model, self.codec, GREEDY | {"batch_tokens": self.settings.batch_tokens})
        decoder = generator.decoder()
        streams = [decoder.stream(prompt, seed=0) for prompt in prompts]
        for batch in generator.batches([len(prompt) for prompt in prompts]):
            decoder.run([streams[i] for i in batch])
        return streams

    def _changed(self, texts: Sequence[str]) -> list[dict[str, str]]:
        """The rows to which base and tuned model give different answers."""
        assert self.base is not None
        return [
            {
                "id": row.example.id,
                "category": row.category,
                "question": row.example.context[-1].message()["content"],
                "base": base,
                "tuned": tuned,
            }
            for row, base, tuned in zip(self.rows, self.base.texts, texts, strict=True)
            if base != tuned
        ]

    def _check_positions(self) -> None:
        config = self.forward.model.config
        positions = max_positions(config)
        for row, encoded in zip(self.rows, self.encoded, strict=True):
            answer = max(len(encoded.answer_labels), ANSWER_TOKENS)
            needed = needed_positions(config, encoded.prompt_length, answer)
            if positions is not None and needed > positions:
                raise UserError(
                    f"{KEY}={self.settings.retention}: {row.example.place} needs {needed} positions, but the model has "
                    f"{positions}; shorten or remove the row"
                )


def _encoded(row: RetentionRow, codec: Codec) -> EncodedExample:
    """The row with labels on its answer, whatever ``data.train_on`` is."""
    example = row.example
    encoded = codec.encode(codec.template.render(example.context, example.tools), example.reply)
    return with_answer(encoded, encoded.answer_labels)


def with_answer(row: EncodedExample, answer: list[int]) -> EncodedExample:
    """The prompt of an encoded example with another answer; labels are on the answer."""
    prompt = row.input_ids[: row.prompt_length]
    ids, labels = (prompt + answer, [IGNORED] * len(prompt) + answer) if row.joined else (prompt, answer)
    return replace(
        row, input_ids=ids, labels=labels, answer_length=len(answer), supervised=len(answer), cut=False, weights=None
    )
