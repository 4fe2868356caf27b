"""Prompts -> answers in batches: the samples in training, the end table, ``evaluate`` and ``answer``."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, repeat
from typing import Any

from llmft.data.batching.sampler import length_batches
from llmft.data.records import Turn
from llmft.data.tokenization.codec import Codec
from llmft.generation.decoder import Decoder
from llmft.generation.prefix_cache import PrefixCache
from llmft.generation.settings import generation_config
from llmft.generation.stream import Answer
from llmft.metrics.text_normalization import normalize
from llmft.models.backbone.load import max_positions, needed_positions
from llmft.models.dtype import computing_in
from llmft.utils.errors import UserError


class Generator:
    """A model, the codec it was trained with, and generation settings.

    Args:
        model: A transformers or peft model.
        codec: Encodes the prompt exactly as for a training example.
        settings: Keys of transformers' GenerationConfig, and ``batch_size``, ``seed``, ``batch_tokens`` (prompt and answer
            tokens per batch, instead of a number of prompts), ``samples`` (answers sampled per prompt; the most frequent one
            is returned) and ``dtype`` (``float32`` converts a base in bfloat16 for as long as answers are generated).
        adapter: Whether the model's adapter, if it has one, is active; without it the base model generates.
        precision: ``trainer.precision`` of the training, which answers are computed in too (``answering_precision``).

    Raises:
        UserError: A setting is unknown, or contradicts another.
    """

    def __init__(
        self,
        model: Any,
        codec: Codec,
        settings: Mapping[str, Any],
        *,
        adapter: bool = True,
        precision: str = "32-true",
    ) -> None:
        self.model, self.codec, self.adapter, self.precision = model, codec, adapter, precision
        self.given = settings
        self.settings = dict(settings)
        self.batch_size, self.seed = self.settings.pop("batch_size"), self.settings.pop("seed")
        self.batch_tokens, self.samples = self.settings.pop("batch_tokens", None), self.settings.pop("samples", 1)
        self.dtype = self.settings.pop("dtype", "auto")
        if self.samples > 1 and not self.settings.get("do_sample"):
            raise UserError(
                f"generation.samples={self.samples}: would be the same answer each time; use generation=sample"
            )
        self._decoder: Decoder | None = None  # with a common prefix
        self.decoder()  # wrong settings are reported before a training, not after it

    def with_settings(self, **changes: Any) -> "Generator":
        """The same model and codec with some settings changed."""
        settings = {**self.given, **changes}
        return Generator(self.model, self.codec, settings, adapter=self.adapter, precision=self.precision)

    def decoder(self) -> Decoder:
        """A decoder of the model under these settings."""
        if self._decoder:
            return self._decoder
        precision = "32-true" if self.dtype == "float32" else self.precision
        return Decoder(self.model, self.codec, self.settings, adapter=self.adapter, precision=precision)

    def sharing(self, prompts: Sequence[Sequence[int]]) -> "Generator":
        """The same generator with the common prefix of prompts computed, which are then answered in several calls."""
        found = self.with_settings()
        found._decoder = found.decoder()
        with computing_in(found.model, found.dtype, found.precision):
            found._decoder.share(prompts)
        return found

    def stream_decoder(self) -> Decoder:
        """A decoder for ``chat`` and ``serve``, which stream one answer per prompt.

        Raises:
            UserError: ``generation.samples`` is above 1.
        """
        if self.samples > 1:
            raise UserError(
                f"generation.samples={self.samples}: chat and serve sample one answer; pass generation.samples=1"
            )
        return self.decoder()

    def config(self) -> Any:
        """The GenerationConfig of these settings, as it is exported with the model."""
        return generation_config(self.model, self.codec, self.settings)

    def answers(self, contexts: Sequence[Sequence[Turn]], tools: Iterable[Sequence[str]] = ()) -> list[Answer]:
        """An answer for each context, in order.

        Args:
            contexts: The turns before each answer.
            tools: The tools of each context, as ``Example.tools``; of those that have none left, none.

        Raises:
            UserError: A prompt and its answer would need more positions than the model has.
        """
        return self.continued(self.prompts(contexts, tools))

    def prompts(self, contexts: Sequence[Sequence[Turn]], tools: Iterable[Sequence[str]] = ()) -> list[list[int]]:
        """The ids of each prompt; the arguments as for ``answers``."""
        render, tools = self.codec.template.render, chain(tools, repeat(()))
        return [self.codec.prompt_ids(render(*both)) for both in zip(contexts, tools, strict=False)]

    def continued(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        known: Mapping[int, Answer] | None = None,
        finished: Callable[[list[int], list[Answer]], None] = lambda *_: None,
    ) -> list[Answer]:
        """An answer for each prompt's ids, in order; batches hold prompts of similar length.

        Args:
            prompts: Token ids.
            known: Answers by the index of their prompt; a batch that has all of them is not generated again. The others stay
                the same batches.
            finished: Called after each batch with the indices of its prompts and their answers.

        Raises:
            UserError: A prompt and its answer would need more positions than the model has.
        """
        self.check_positions(prompts)
        decoder = self.decoder()
        answers = dict(known or {})
        batches = self.batches([len(prompt) for prompt in prompts])
        batches = [rows for rows in batches if any(row not in answers for row in rows)]
        with computing_in(self.model, self.dtype, self.precision):
            decoder.share([prompts[row] for rows in batches for row in rows])
            for rows in batches:
                found = self._batch(decoder, [prompts[row] for row in rows])
                answers.update(zip(rows, found, strict=True))
                finished(rows, found)
        return [answers[row] for row in range(len(prompts))]

    def _batch(self, decoder: Decoder, prompts: Sequence[Sequence[int]]) -> list[Answer]:
        votes, prefixes = [], PrefixCache(float("inf"))
        for sample in range(self.samples):
            if self.samples > 1:  # the first one computes the prompts
                decoder.remember(prefixes, adds=sample == 0)
            streams = [decoder.stream(prompt, seed=self.seed, sample=sample) for prompt in prompts]
            decoder.run(streams)
            votes.append([stream.answer() for stream in streams])
        return votes[0] if self.samples == 1 else [majority(each) for each in zip(*votes, strict=True)]

    def check_positions(self, prompts: Sequence[Sequence[int]]) -> None:
        """Check that every prompt and its answer fit into the model's positions.

        Raises:
            UserError: They do not.
        """
        positions, longest = max_positions(self.model.config), max(map(len, prompts), default=0)
        answer = self.settings.get("max_new_tokens", 0)
        needed = needed_positions(self.model.config, longest, answer)
        if positions is not None and needed > positions:
            if self.model.config.is_encoder_decoder:
                raise UserError(
                    f"the longest prompt has {longest} tokens, and generation.max_new_tokens={answer}; the model has {positions} "
                    "positions for each"
                )
            raise UserError(
                f"the longest prompt has {longest} tokens; with generation.max_new_tokens that makes {needed},"
                f" but the model has {positions} positions"
            )

    def batches(self, lengths: Sequence[int]) -> list[list[int]]:
        """Indices of prompts in batches, short prompts first: ``batch_size`` each, or as many as fit into ``batch_tokens``.

        A batch takes prompts x beams x (longest prompt + max_new_tokens) tokens; a prompt over the budget is a batch of its
        own.
        """
        if not self.batch_tokens:
            return length_batches(lengths, max_rows=self.batch_size)
        budget = self.batch_tokens // self.settings.get("num_beams", 1)
        return length_batches(lengths, max_tokens=budget, extra=self.settings.get("max_new_tokens", 0))


def majority(answers: Sequence[Answer]) -> Answer:
    """Self-consistency (Wang et al. 2023): the most frequent answer by normalized text; the first one of a tie."""
    counts = Counter(normalize(answer.text) for answer in answers)
    best = max(answers, key=lambda answer: counts[normalize(answer.text)])
    return best._replace(votes=counts[normalize(best.text)])
