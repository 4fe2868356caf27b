"""Decoding by CTranslate2 for ``chat`` and ``serve``: batches in its threads, sampled with llmft's own random numbers."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from llmft.data.tokenization.codec import Codec
from llmft.generation.decoder import MOVABLE, NEUTRAL, Admit, Decoder
from llmft.generation.generator import Generator
from llmft.generation.runtime_generator import check_dtype
from llmft.generation.sampling import sample_tokens, sampling_settings
from llmft.generation.settings import generation_config, stop_ids
from llmft.generation.stream import Stream
from llmft.runtimes.ctranslate2 import CTranslate2Runtime
from llmft.utils.errors import UserError

POLL = 0.01  # seconds between two looks for new sequences
# CTranslate2 computes the prompts of a batch together up to the length of the shortest, and the rest one token per step: prompts
# in a batch differ by at most this many tokens.
SPREAD = 16
# A batch is started again with new sequences in its first steps, or when it has made as many steps as the restart costs: this
# many prompt tokens take as long as one step (the ratio on two CPU cores with SmolLM2 135M).
EARLY_STEPS = 16
PROMPT_TOKENS_PER_STEP = 64


@dataclass(frozen=True)
class ConvertedModel:
    """A converted model, with the configs that ``Generator`` reads from a transformers model.

    Attributes:
        runtime: The model in CTranslate2.
        config: The transformers config of the weights that were converted.
        generation_config: Its GenerationConfig.
        device: Of the tensors that it is given and returns.
    """

    runtime: CTranslate2Runtime
    config: Any
    generation_config: Any
    device: ClassVar[torch.device] = torch.device("cpu")


class CTranslate2Generator(Generator):
    """As ``Generator``, for a ``ConvertedModel``."""

    def with_settings(self, **changes: Any) -> "CTranslate2Generator":
        """The same model and codec with some settings changed."""
        return CTranslate2Generator(self.model, self.codec, {**self.given, **changes})

    def decoder(self) -> Decoder:
        """A decoder of the model under these settings."""
        return CTranslate2Decoder(self.model, self.codec, self.settings)


def open_converted(folder: Path, codec: Codec, settings: Mapping[str, Any]) -> CTranslate2Generator:
    """Open a folder of ``form=ctranslate2``.

    Args:
        folder: The folder.
        codec: Tokenizer and prompt template of the training.
        settings: As of ``Generator``.

    Raises:
        UserError: CTranslate2 is not installed, cannot load the folder, or does not support a setting.
    """
    from transformers import CONFIG_MAPPING, GenerationConfig

    check_dtype(settings, "generation", "CTranslate2")
    runtime = CTranslate2Runtime(folder, threads=torch.get_num_threads())
    config = CONFIG_MAPPING[runtime.config["model_type"]].from_dict(runtime.config)
    model = ConvertedModel(runtime, config, GenerationConfig.from_pretrained(folder))
    return CTranslate2Generator(model, codec, settings)


class CTranslate2Decoder(Decoder):
    """Decodes sequences of a converted model: greedy, or sampled (each with its own random numbers).

    CTranslate2's own sampling cannot be seeded for one answer. So it decodes greedily, and llmft samples from its logits: where
    the sampled token is not the most likely one, the sequence continues behind it in a new call. A sampled answer costs more
    than a greedy one, does not depend on the batch, and is that of the torch engine but for rounding.

    Args:
        model: The converted model.
        codec: Its tokenizer and prompt template.
        settings: Keys of transformers' GenerationConfig.

    Raises:
        UserError: A setting is unknown, contradicts another, or is not supported by CTranslate2 here.
    """

    def __init__(self, model: ConvertedModel, codec: Codec, settings: Mapping[str, Any]) -> None:
        self.model, self.codec, self.settings, self.adapter = model, codec, settings, True
        self.config = generation_config(model, codec, settings)
        for name, value in settings.items():
            if {"num_beams": 1, **NEUTRAL}.get(name, value if name in MOVABLE else ...) != value:
                raise UserError(
                    f"generation.{name}={value}: with CTranslate2, llmft decodes greedily or samples; drop the setting, or use"
                    " the torch engine"
                )
        self.sampling, self.beams, self.prefill = sampling_settings(settings), 1, None
        self.runtime = model.runtime
        self.stop_ids = frozenset(stop_ids(model, codec)) | self.runtime.stop_ids

    def run(self, streams: Sequence[Stream], admit: Admit = lambda _: ()) -> None:
        """Decode all sequences to their ends, and those that ``admit`` returns in between."""
        waiting, joined = _open(streams), False
        with ThreadPoolExecutor(1) as pool:
            while waiting:
                batch = _Batch(self.runtime, waiting if joined else _similar(waiting, self.runtime))
                waiting = [stream for stream in waiting if stream not in batch.streams]
                joined = False
                call = pool.submit(batch.decode)
                while not wait([call], timeout=POLL).done:
                    waiting += _open(admit(len(waiting) + len(batch.rest())))
                    if waiting and not joined and batch.can_join(waiting):
                        joined = batch.interrupted = True
                call.result()
                waiting = [*batch.rest(), *waiting]
                waiting += _open(admit(len(waiting)))


class _Batch:
    """Sequences that one call of CTranslate2 decodes.

    Args:
        runtime: The model.
        streams: The sequences.

    Attributes:
        interrupted: Set to end the call at the next token of each sequence; they continue in another batch.
    """

    def __init__(self, runtime: CTranslate2Runtime, streams: list[Stream]) -> None:
        self.runtime, self.streams = runtime, streams
        self.taken, self.diverged = [0] * len(streams), 0
        self.interrupted = False

    def decode(self) -> None:
        """Decode until every sequence has ended, or is to continue in another call; called in a thread."""
        if self.runtime.is_encoder_decoder:
            for stream in self.streams:
                for token in [] if stream.ids else self.runtime.forced:
                    stream.take(token)
        self.streams = self.rest()
        if not self.streams:
            return
        with torch.inference_mode():
            self.runtime.continued(
                [stream.prompt for stream in self.streams],
                [list(stream.ids) for stream in self.streams],
                max(stream.limit for stream in self.streams),
                self._take,
                logits=any(stream.sampling for stream in self.streams),
            )

    def rest(self) -> list[Stream]:
        """The sequences that have not ended."""
        return _open(self.streams)

    def can_join(self, new: Sequence[Stream]) -> bool:
        """Whether a restart with new sequences costs no more than the call has computed so far."""
        steps, lengths = max(self.taken), [_length(stream, self.runtime) for stream in (*self.streams, *new)]
        spread = max(lengths) - min(lengths)
        early = steps < EARLY_STEPS and spread <= SPREAD
        return early or steps >= sum(lengths) / PROMPT_TOKENS_PER_STEP + spread

    def _take(self, row: int, token: int, logits: Any) -> bool:
        stream = self.streams[row]
        if stream.is_done():
            return True
        self.taken[row] += 1
        chosen = token if stream.sampling is None else _sampled(stream, logits)
        stream.take(chosen)
        if chosen != token:  # when half of the sequences wait, the others do not go on alone
            self.diverged += 1
            self.interrupted = self.interrupted or 2 * self.diverged >= len(self.streams)
        return stream.reason is not None or chosen != token or self.interrupted


def _sampled(stream: Stream, logits: Any) -> int:
    assert stream.sampling is not None
    scores = torch.from_numpy(logits[np.newaxis])
    ids = torch.tensor([[*stream.prompt, *stream.ids]])
    return int(sample_tokens({0: stream.sampling}, ids, scores).argmax())


def _open(streams: Iterable[Stream]) -> list[Stream]:
    return [stream for stream in streams if not stream.is_done()]


def _similar(streams: Sequence[Stream], runtime: CTranslate2Runtime) -> list[Stream]:
    """The first sequence, and those of similar length."""
    first = _length(streams[0], runtime)
    return [stream for stream in streams if abs(_length(stream, runtime) - first) <= SPREAD]


def _length(stream: Stream, runtime: CTranslate2Runtime) -> int:
    """Tokens in the decoder's cache; an encoder-decoder's prompt is not there."""
    return len(stream.ids) + (0 if runtime.is_encoder_decoder else len(stream.prompt))
