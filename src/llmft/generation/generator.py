"""Questions -> answers: batched decoding, shared by the samples in training, the end table and ``answer``."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch

from llmft.config.schema.generation import settings_fault
from llmft.data.batching.collate import generation_batch
from llmft.data.records import Turn
from llmft.data.tokenization.codec import Codec
from llmft.metrics.text_normalization import normal
from llmft.models.backbone.load import max_positions
from llmft.utils.errors import UserError


class Answer(NamedTuple):
    """A generated answer: its text, whether it ended by itself, and its length in tokens (without the stop token).

    ``votes``, where several were drawn: how many of them say the same.
    """

    text: str
    ended: bool
    tokens: int
    votes: int | None = None


class Generator:
    """A model, the codec it was trained with, and generation settings.

    Args:
        model: A transformers or peft model.
        codec: Makes the prompt's ids, exactly as for a training row.
        settings: Keys of transformers' GenerationConfig, and ``batch_size``, ``seed``, ``batch_tokens`` (tokens of prompts and
            answers in a batch, in place of a number of rows) and ``samples`` (answers drawn for a question, the most
            frequent of which counts).
        adapter: Whether the model's adapter, if it has one, takes part; without it the base model is asked.
    """

    def __init__(self, model: Any, codec: Codec, settings: Mapping[str, Any], *, adapter: bool = True) -> None:
        self.model, self.codec, self.adapter = model, codec, adapter
        self.given = settings
        self.settings = dict(settings)
        self.batch_size, self.seed = self.settings.pop("batch_size"), self.settings.pop("seed")
        self.batch_tokens, self.samples = self.settings.pop("batch_tokens", None), self.settings.pop("samples", 1)
        self.config()  # a wrong setting is said now, not after a training

    def with_settings(self, **changes: Any) -> "Generator":
        """The same model and codec with some settings changed."""
        return Generator(self.model, self.codec, {**self.given, **changes}, adapter=self.adapter)

    @contextmanager
    def asked(self) -> Iterator[None]:
        """The model as it is asked: in eval mode, without gradients, and without its adapter where the base is meant."""
        with answering(self.model), nullcontext() if self.adapter else self.model.disable_adapter():
            yield

    def stop_ids(self) -> list[int]:
        """The ids that end an answer: the trained stop token, the tokenizer's EOS and those of the model's own config."""
        own = self.model.generation_config.eos_token_id
        own = own if isinstance(own, list) else [own]
        return sorted({self.codec.stop_id, self.codec.tokenizer.eos_token_id, *own} - {None})

    def config(self) -> Any:
        """The GenerationConfig that is used, and exported with the model.

        Raises:
            UserError: A setting is unknown, or contradicts another.
        """
        own = self.model.generation_config
        ids = {"bos_token_id": own.bos_token_id, "eos_token_id": self.stop_ids()}
        ids |= {
            "pad_token_id": self.codec.tokenizer.pad_token_id,
            "decoder_start_token_id": own.decoder_start_token_id,
        }
        if fault := settings_fault(self.settings):
            raise UserError(fault)
        from transformers import GenerationConfig

        if self.samples > 1 and not self.settings.get("do_sample"):
            raise UserError(
                f"generation.samples={self.samples}: would be the same answer each time; use generation=sample"
            )
        return GenerationConfig(**self.settings, **ids, use_cache=True)

    def answers(self, contexts: Sequence[Sequence[Turn]]) -> list[Answer]:
        """An answer for each context, in their order.

        Raises:
            UserError: A prompt and its answer would need more positions than the model has.
        """
        template = self.codec.template
        return self.continued([self.codec.prompt_ids(template.render(context)) for context in contexts])

    def continued(self, prompts: Sequence[Sequence[int]]) -> list[Answer]:
        """An answer for each prompt's ids, in their order; batches hold prompts of like length.

        Raises:
            UserError: A prompt and its answer would need more positions than the model has.
        """
        self.check_positions(prompts)
        drawn = [self._drawn(prompts, self.seed + sample) for sample in range(self.samples)]
        return drawn[0] if self.samples == 1 else [majority(answers) for answers in zip(*drawn, strict=True)]

    def check_positions(self, prompts: Sequence[Sequence[int]]) -> None:
        """Find out before any answer that one would need more positions than there are.

        Raises:
            UserError: A prompt and its answer would.
        """
        positions, longest = max_positions(self.model.config), max(map(len, prompts), default=0)
        needed = longest + self.settings.get("max_new_tokens", 0)
        if positions is not None and needed > positions:
            raise UserError(
                f"the longest prompt has {longest} tokens; with generation.max_new_tokens that makes {needed},"
                f" but the model has {positions} positions"
            )

    def _drawn(self, prompts: Sequence[Sequence[int]], seed: int) -> list[Answer]:
        found: dict[int, Answer] = {}
        with self.asked(), torch.random.fork_rng():
            torch.manual_seed(seed)
            for rows in self.batches([len(prompt) for prompt in prompts]):
                found.update(zip(rows, self._decode_batch([prompts[i] for i in rows]), strict=True))
        return [found[i] for i in range(len(prompts))]

    def batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Positions in ``lengths``, short prompts first: ``batch_size`` at a time, or as many as ``batch_tokens`` holds.

        A batch takes rows x beams x (longest prompt + max_new_tokens) tokens, so short prompts share larger batches; a
        prompt that is over the budget alone is a batch of one.
        """
        batch: list[int] = []
        for row in sorted(range(len(lengths)), key=lambda i: lengths[i]):  # the longest of a batch is its last
            size = len(batch) + 1
            tokens = size * self.settings.get("num_beams", 1) * (lengths[row] + self.settings.get("max_new_tokens", 0))
            if batch and (tokens > self.batch_tokens if self.batch_tokens else size > self.batch_size):
                yield batch
                batch = []
            batch.append(row)
        if batch:
            yield batch

    def _decode_batch(self, prompts: Sequence[Sequence[int]]) -> Iterator[Answer]:
        seq2seq = self.model.config.is_encoder_decoder
        batch = generation_batch(prompts, self.codec.tokenizer.pad_token_id, pad_left=not seq2seq)
        batch = {name: tensor.to(self.model.device) for name, tensor in batch.items()}
        # by count, never by comparing text: what was put in comes first, for T5 that is the decoder's start token
        given = 1 if seq2seq else batch["input_ids"].shape[1]
        out = self.model.generate(**batch, generation_config=self.config())
        stops = set(self.stop_ids())
        for ids in out[:, given:].tolist():
            end = next((i for i, token in enumerate(ids) if token in stops), None)
            kept = ids[:end]
            yield Answer(self.codec.decode(kept), end is not None, len(kept))


def majority(answers: Sequence[Answer]) -> Answer:
    """Self-consistency (Wang et al. 2023): the answer that most say, by normal form; the first of equally frequent ones."""
    counts = Counter(normal(answer.text) for answer in answers)
    best = max(answers, key=lambda answer: counts[normal(answer.text)])
    return best._replace(votes=counts[normal(best.text)])


@contextmanager
def answering(model: Any) -> Iterator[None]:
    """Eval mode and no gradients, for as long as answers are made; every module's mode is put back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
