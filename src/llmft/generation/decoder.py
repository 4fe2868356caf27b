"""Continuous batching: sequences leave the batch when they end, and new ones join while it runs."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import groupby
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import DynamicCache, LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList
from transformers.cache_utils import DynamicLayer

from llmft.data.batching.collate import generation_batch
from llmft.data.tokenization.codec import Codec
from llmft.generation.batch import Batch, Prefix, cache_of, joined, running
from llmft.generation.prefill import Prefill
from llmft.generation.prefix_cache import PrefixCache, States
from llmft.generation.sampling import SAMPLING_KEYS, Sampling, sample_tokens, sampling_settings
from llmft.generation.settings import generation_config, stop_ids
from llmft.generation.stream import Stream
from llmft.utils.device import to_device
from llmft.utils.errors import UserError
from llmft.utils.modules import eval_mode

# Called between two steps with the number of running sequences; returns new ones to admit.
Admit = Callable[[int], Sequence[Stream]]
# Settings under which the logits of a sequence depend on its own tokens alone. Others (penalties, a minimum length) may count
# padding or steps, so that a sequence must stay in the batch that it started in.
MOVABLE = {"max_new_tokens", "do_sample", "num_beams", *SAMPLING_KEYS}
NEUTRAL = {"repetition_penalty": 1.0, "no_repeat_ngram_size": 0}


class Decoder:
    """Decodes sequences of one model: greedy, sampled (each with its own random numbers), or by beam search.

    Args:
        model: A transformers or peft model.
        codec: Its tokenizer and prompt template.
        settings: Keys of transformers' GenerationConfig.
        adapter: Whether the model's adapter, if it has one, is active.

    Raises:
        UserError: A setting is unknown, contradicts another, or is not supported.
    """

    def __init__(self, model: Any, codec: Codec, settings: Mapping[str, Any], *, adapter: bool = True) -> None:
        self.model, self.codec, self.settings, self.adapter = model, codec, settings, adapter
        self.config = generation_config(model, codec, settings)
        self.sampling, self.beams = sampling_settings(settings), settings.get("num_beams", 1)
        if self.sampling is not None and self.beams > 1:
            raise UserError(
                f"generation.num_beams={self.beams}: beam search does not sample; pass generation.num_beams=1,"
                " or generation.do_sample=false"
            )
        # tokens are sampled by a logits processor, so for transformers every sequence is greedy
        greedy = {name: v for name, v in settings.items() if name not in (*SAMPLING_KEYS, "do_sample", "num_beams")}
        self.greedy_config = generation_config(model, codec, greedy)
        self.greedy_config.return_dict_in_generate = True
        self.stop_ids = frozenset(stop_ids(model, codec))
        layers = [] if model.config.is_encoder_decoder else DynamicCache(config=model.config).layers
        self.can_join = bool(layers) and all(type(layer) is DynamicLayer for layer in layers)
        self.can_join &= all(name in MOVABLE or NEUTRAL.get(name, ...) == value for name, value in settings.items())
        pad_id, scope = codec.tokenizer.pad_token_id, (model, adapter)
        self.prefill = Prefill(model, pad_id, scope, self._states) if self.can_join else None

    @contextmanager
    def inference(self) -> Iterator[None]:
        """The model in eval mode, without gradients, and without its adapter for the base model."""
        base = nullcontext() if self.adapter else self.model.disable_adapter()
        with eval_mode(self.model), torch.inference_mode(), base:
            yield

    def stream(self, prompt: Sequence[int], *, seed: int, sample: int = 0, **options: Any) -> Stream:
        """A sequence under the decoder's settings.

        Args:
            prompt: Token ids to continue.
            seed: Seed of a sampled answer.
            sample: Index of the sample, if there are several for one prompt.
            options: Other fields of the stream.
        """
        options.setdefault("limit", self.settings.get("max_new_tokens", 1))
        sampling = self.sampling and Sampling(self.sampling, seed, sample=sample, prompt=prompt)
        options.setdefault("sampling", sampling)
        return Stream(prompt, codec=self.codec, stop_ids=self.stop_ids, **options)

    def share(self, prompts: Sequence[Sequence[int]]) -> None:
        """Compute the common prefix of prompts once, before they are decoded in several batches."""
        if self.prefill and self.beams == 1:
            with self.inference():
                self.prefill.share(prompts)

    def remember(self, prefixes: PrefixCache) -> None:
        """Take known prefixes of prompts from a cache, and add new prompts and their answers to it.

        Beam search, encoder-decoders, models with a sliding window, and settings outside ``MOVABLE`` use none.
        """
        if self.prefill and self.prefill.can_share and prefixes.limit:
            self.prefill.prefixes, self.prefill.remembers = prefixes, True

    def run(self, streams: Sequence[Stream], admit: Admit = lambda _: ()) -> None:
        """Decode all sequences to their ends, and those that ``admit`` returns in between.

        Beam search, encoder-decoders, models with a sliding window, and settings outside ``MOVABLE`` admit none.
        """
        streams = [stream for stream in streams if not stream.is_done()]
        beams = [stream for stream in streams if self.beams > 1 and stream.sampling is None]
        rest = [stream for stream in streams if stream not in beams]
        with self.inference():
            for limit, group in groupby(sorted(beams, key=_limit), key=_limit):
                self._beam_search(list(group), limit)
            if rest and self.prefill:
                self._decode_continuously(rest, admit, self.prefill)
            elif rest:
                self._generate(rest, self._inputs(rest), lambda: False)

    def _decode_continuously(self, streams: Sequence[Stream], admit: Admit, prefill: Prefill) -> None:
        batch, waiting = None, list(streams)

        def pause() -> bool:
            running = sum(stream.reason is None for stream in batch.streams) if batch else 0
            waiting.extend(admit(running))
            return bool(waiting) or 2 * running <= len(batch.streams if batch else ())

        while waiting or batch:
            if waiting:
                new, waiting = waiting, []
                starting = prefill.batches(new)
                if batch is None and len(starting) == 1 and not prefill.remembers:
                    batch = starting.pop()
                # one step on its own fills the cache of new sequences up to where the others are
                for one in starting:
                    batch = joined(batch, self._advanced(one, lambda: True))
            if batch:
                batch = self._advanced(batch, pause)
            if not batch and not waiting:
                waiting += admit(0)

    def _advanced(self, batch: Batch, pause: Callable[[], bool]) -> Batch | None:
        """The batch after some steps, without the sequences that have ended."""
        inputs = {"input_ids": batch.ids, "attention_mask": batch.mask, "past_key_values": batch.cache}
        before = [stream for stream in batch.streams if stream.started]
        out = self._generate(batch.streams, inputs, pause)
        mask = pad(batch.mask, (0, out.sequences.shape[1] - batch.ids.shape[1]), value=1)
        after = Batch(batch.streams, out.sequences, mask, out.past_key_values)
        if self.prefill:
            new_or_ended = [stream for stream in batch.streams if stream.reason or stream not in before]
            self.prefill.remember(after, new_or_ended)
        return running(after)

    def _states(self, ids: Sequence[int], known: Prefix) -> States:
        """Keys and values of token ids, of which those of a prefix are known."""
        inputs = generation_batch([ids], self.codec.tokenizer.pad_token_id, pad_left=True)
        config = copy.copy(self.greedy_config)
        config.max_new_tokens = 1
        cache = cache_of(self.model, known.states) if known.states else None
        inputs = to_device(inputs, self.model.device)
        out = self.model.generate(**inputs, past_key_values=cache, generation_config=config)
        return [(layer.keys, layer.values) for layer in out.past_key_values.layers]

    def _generate(self, streams: Sequence[Stream], inputs: dict[str, Any], pause: Callable[[], bool]) -> Any:
        config = copy.copy(self.greedy_config)
        config.max_new_tokens = max(stream.limit - len(stream.ids) for stream in streams)
        return self.model.generate(
            **inputs,
            generation_config=config,
            logits_processor=LogitsProcessorList([_Sample(streams)] if any(s.sampling for s in streams) else []),
            stopping_criteria=StoppingCriteriaList([_Take(streams, self._start(inputs), pause)]),
        )

    def _beam_search(self, streams: Sequence[Stream], limit: int) -> None:
        """Beam search by transformers: the whole batch at once, its answers at the end."""
        config = copy.copy(self.config)
        config.max_new_tokens = limit
        inputs = self._inputs(streams)
        stop = StoppingCriteriaList([_Cancelled(streams)])
        out = self.model.generate(**inputs, generation_config=config, stopping_criteria=stop)
        for stream, ids in zip(streams, out[:, self._start(inputs) :].tolist(), strict=True):
            for token in ids:
                if stream.reason is None:
                    stream.take(token)
            stream.end("length")

    def _start(self, inputs: dict[str, Any]) -> int:
        """Where new tokens begin in the output: after the prompt, or after the start token of an encoder-decoder."""
        return 1 if self.model.config.is_encoder_decoder else inputs["input_ids"].shape[1]

    def _inputs(self, streams: Sequence[Stream]) -> dict[str, Any]:
        pad_left = not self.model.config.is_encoder_decoder
        prompts = [stream.prompt for stream in streams]
        return to_device(
            generation_batch(prompts, self.codec.tokenizer.pad_token_id, pad_left=pad_left), self.model.device
        )


class _Sample(LogitsProcessor):
    """Replaces the scores of sampled sequences, so that their argmax is the sampled token."""

    def __init__(self, streams: Sequence[Stream]) -> None:
        self.streams = streams

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        rows = {row: s.sampling for row, s in enumerate(self.streams) if s.sampling is not None and s.reason is None}
        return sample_tokens(rows, input_ids, scores) if rows else scores


class _Take(StoppingCriteria):
    """Passes each sequence its new tokens (one, but for speculative decoding); stops when all have ended, or for a pause."""

    def __init__(self, streams: Sequence[Stream], start: int, pause: Callable[[], bool]) -> None:
        self.streams, self.taken, self.pause = streams, start, pause

    def __call__(self, input_ids: torch.Tensor, *_: Any, **__: Any) -> Any:
        for stream, tokens in zip(self.streams, input_ids[:, self.taken :].tolist(), strict=True):
            for token in tokens:
                if stream.reason is None:
                    stream.take(token)
        self.taken = input_ids.shape[1]
        ended = [stream.reason is not None for stream in self.streams]
        stop = all(ended) or self.pause()
        return torch.tensor([stop or one for one in ended], device=input_ids.device)


class _Cancelled(StoppingCriteria):
    """Stops a beam search when all of its sequences were cancelled."""

    def __init__(self, streams: Sequence[Stream]) -> None:
        self.streams = streams

    def __call__(self, input_ids: torch.Tensor, *_: Any, **__: Any) -> Any:
        return torch.full((len(input_ids),), all(stream.is_done() for stream in self.streams), device=input_ids.device)


def _limit(stream: Stream) -> int:
    return stream.limit
