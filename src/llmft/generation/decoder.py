"""Streams -> their tokens: a batch that every answer leaves at its own end, and that others may join on the way."""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch.nn.functional import pad
from transformers import DynamicCache, LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList
from transformers.cache_utils import DynamicLayer

from llmft.data.batching.collate import generation_batch
from llmft.generation.generator import Generator
from llmft.generation.sampling import OWN, Sampling, sampling_of
from llmft.generation.stream import Stream
from llmft.utils.errors import UserError

More = Callable[[int], Sequence[Stream]]
# Settings under which a row's scores depend on its text alone. With others (penalties, a least length) they may depend on
# how far it is padded or where its batch began, so that it never moves to another one.
MOVABLE = {"max_new_tokens", "do_sample", "num_beams", *OWN}
NEUTRAL = {"repetition_penalty": 1.0, "no_repeat_ngram_size": 0}


class Batch(NamedTuple):
    """Causal answers between two steps: ``ids`` and ``mask`` [B, S], padded on the left; the cache holds S - 1 positions."""

    streams: list[Stream]
    ids: torch.Tensor
    mask: torch.Tensor
    cache: Any


class Decoder:
    """Makes the answers of one generator, a token of each at a time.

    Greedy answers are those of ``Generator.continued``; drawn ones depend on their own seed, not on the batch.

    Raises:
        UserError: The settings ask for what cannot be done a token at a time.
    """

    def __init__(self, generator: Generator) -> None:
        self.generator, settings = generator, generator.settings
        if generator.samples > 1:
            raise UserError(
                f"generation.samples={generator.samples}: one answer is drawn here; pass generation.samples=1"
            )
        if odd := [name for name in ("typical_p", "epsilon_cutoff", "eta_cutoff") if name in settings]:
            raise UserError(f"generation.{odd[0]}: answers are drawn by {', '.join(OWN)} here; leave it away")
        model = generator.model
        layers = [] if model.config.is_encoder_decoder else DynamicCache(config=model.config).layers
        self.joins = bool(layers) and all(type(layer) is DynamicLayer for layer in layers)
        self.joins &= all(name in MOVABLE or NEUTRAL.get(name, ...) == value for name, value in settings.items())
        self.beams = 1 if settings.get("do_sample") else settings.get("num_beams", 1)
        # each row draws for itself, so for transformers all are greedy
        steps = {name: value for name, value in settings.items() if name not in (*OWN, "do_sample", "num_beams")}
        self.steps = Generator(model, generator.codec, {**steps, "batch_size": 1, "seed": 0})

    def stream(self, prompt: Sequence[int], *, seed: int, **options: Any) -> Stream:
        """A stream under the generator's own settings.

        Args:
            prompt: Ids to continue.
            seed: Of what is drawn.
            options: Other fields of the stream.
        """
        own = self.generator.settings
        drawn = sampling_of(own)
        options.setdefault("limit", own.get("max_new_tokens", 1))
        options.setdefault("sampling", Sampling(drawn, seed) if drawn else None)
        return Stream(prompt, codec=self.generator.codec, stop_ids=frozenset(self.generator.stop_ids()), **options)

    def run(self, streams: Sequence[Stream], more: More = lambda _: ()) -> None:
        """Answer all; ``more`` is told how many are being answered and gives those that join them.

        An answer found by beams comes whole. Nobody joins those, nor an encoder-decoder, nor a model with a sliding window.
        """
        streams = [stream for stream in streams if not stream.gone()]
        beams = [stream for stream in streams if self.beams > 1 and stream.sampling is None]
        rest = [stream for stream in streams if stream not in beams]
        with self.generator.asked():
            for limit, alike in groupby(sorted(beams, key=_limit), key=_limit):
                self._beam(list(alike), limit)
            if rest and self.joins:
                self._join(rest, more)
            elif rest:
                self._generate(rest, self._prompted(rest), lambda: False)

    def _join(self, streams: Sequence[Stream], more: More) -> None:
        batch, waiting = None, list(streams)

        def pause() -> bool:
            live = sum(stream.reason is None for stream in batch.streams) if batch else 0
            waiting.extend(more(live))
            return bool(waiting) or 2 * live <= len(batch.streams if batch else ())

        while waiting or batch:
            if waiting:  # one step by themselves, then they stand where the others do
                prompts = self._prompted(waiting)
                new = Batch(waiting, prompts["input_ids"], prompts["attention_mask"], None)
                batch, waiting = _joined(batch, self._advanced(new, lambda: True)), []
            if batch:
                batch = self._advanced(batch, pause)
            if not batch and not waiting:
                waiting += more(0)

    def _advanced(self, batch: Batch, pause: Callable[[], bool]) -> Batch | None:
        """The batch after some steps, without the answers that have ended."""
        inputs = {"input_ids": batch.ids, "attention_mask": batch.mask}
        if batch.cache is not None:
            inputs["past_key_values"] = batch.cache
        out = self._generate(batch.streams, inputs, pause)
        mask = pad(batch.mask, (0, out.sequences.shape[1] - batch.ids.shape[1]), value=1)
        return _kept(Batch(batch.streams, out.sequences, mask, out.past_key_values))

    def _generate(self, streams: Sequence[Stream], inputs: dict[str, Any], pause: Callable[[], bool]) -> Any:
        config = self.steps.config()
        config.return_dict_in_generate = True
        config.max_new_tokens = max(stream.limit - len(stream.ids) for stream in streams)
        return self.generator.model.generate(
            **inputs,
            generation_config=config,
            logits_processor=LogitsProcessorList([_Draw(streams)]),
            stopping_criteria=StoppingCriteriaList([_Take(streams, pause)]),
        )

    def _beam(self, streams: Sequence[Stream], limit: int) -> None:
        config = self.generator.with_settings(max_new_tokens=limit).config()
        inputs = self._prompted(streams)
        stop = StoppingCriteriaList([_Leave(streams)])
        out = self.generator.model.generate(**inputs, generation_config=config, stopping_criteria=stop)
        given = 1 if self.generator.model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
        for stream, ids in zip(streams, out[:, given:].tolist(), strict=True):
            for token in ids:
                if stream.reason is None:
                    stream.take(token)
            stream.end("length")

    def _prompted(self, streams: Sequence[Stream]) -> dict[str, Any]:
        model, prompts = self.generator.model, [stream.prompt for stream in streams]
        pad_id = self.generator.codec.tokenizer.pad_token_id
        batch = generation_batch(prompts, pad_id, pad_left=not model.config.is_encoder_decoder)
        return {name: tensor.to(model.device) for name, tensor in batch.items()}


class _Draw(LogitsProcessor):
    """Each row draws its token in its own way."""

    def __init__(self, streams: Sequence[Stream]) -> None:
        self.streams = streams

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        for row, stream in enumerate(self.streams):
            if stream.sampling is not None and stream.reason is None:
                scores[row : row + 1] = stream.sampling(input_ids[row : row + 1], scores[row : row + 1])
        return scores


class _Take(StoppingCriteria):
    """Gives each stream its token of this step; stops when all have ended, or for a pause."""

    def __init__(self, streams: Sequence[Stream], pause: Callable[[], bool]) -> None:
        self.streams, self.pause = streams, pause

    def __call__(self, input_ids: torch.Tensor, *_: Any, **__: Any) -> Any:
        for stream, token in zip(self.streams, input_ids[:, -1].tolist(), strict=True):
            if stream.reason is None:
                stream.take(token)
        ended = [stream.reason is not None for stream in self.streams]
        stop = all(ended) or self.pause()
        return torch.tensor([stop or one for one in ended], device=input_ids.device)


class _Leave(StoppingCriteria):
    """Stops a search that nobody waits for any more."""

    def __init__(self, streams: Sequence[Stream]) -> None:
        self.streams = streams

    def __call__(self, input_ids: torch.Tensor, *_: Any, **__: Any) -> Any:
        return torch.full((len(input_ids),), all(stream.gone() for stream in self.streams), device=input_ids.device)


def _limit(stream: Stream) -> int:
    return stream.limit


def _kept(batch: Batch) -> Batch | None:
    """The answers that go on, with no more padding than they need."""
    rows = [row for row, stream in enumerate(batch.streams) if stream.reason is None]
    if not rows:
        return None
    streams, mask = [batch.streams[row] for row in rows], batch.mask[rows]
    spare = int(mask.argmax(dim=1).min())
    for layer in batch.cache.layers:
        layer.keys, layer.values = layer.keys[rows, :, spare:], layer.values[rows, :, spare:]
    return Batch(streams, batch.ids[rows, spare:], mask[:, spare:], batch.cache)


def _joined(one: Batch | None, other: Batch | None) -> Batch | None:
    """Two batches as one, the shorter of them padded further."""
    if one is None or other is None:
        return one or other
    width = max(one.ids.shape[1], other.ids.shape[1])
    wide, more = _padded(one, width), _padded(other, width)
    for layer, new in zip(wide.cache.layers, more.cache.layers, strict=True):
        layer.keys, layer.values = torch.cat([layer.keys, new.keys]), torch.cat([layer.values, new.values])
    streams = [*wide.streams, *more.streams]
    return Batch(streams, torch.cat([wide.ids, more.ids]), torch.cat([wide.mask, more.mask]), wide.cache)


def _padded(batch: Batch, width: int) -> Batch:
    by = width - batch.ids.shape[1]
    for layer in batch.cache.layers:
        layer.keys, layer.values = (pad(states, (0, 0, by, 0)) for states in (layer.keys, layer.values))
    return batch._replace(ids=pad(batch.ids, (by, 0)), mask=pad(batch.mask, (by, 0)))
