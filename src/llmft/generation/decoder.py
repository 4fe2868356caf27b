"""Continuous batching: sequences leave the batch when they end, and new ones join while it runs."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import groupby
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import DynamicCache, LogitsProcessorList, StoppingCriteriaList
from transformers.cache_utils import DynamicLayer

from llmft.data.batching.collate import generation_batch
from llmft.data.tokenization.codec import Codec
from llmft.generation.batch import Batch, Prefix, cache_of, joined, running
from llmft.generation.prefill import Prefill
from llmft.generation.prefix_cache import PrefixCache, States
from llmft.generation.sampling import SAMPLING_KEYS, Sampling, sampling_settings
from llmft.generation.settings import generation_config, stop_ids
from llmft.generation.steps import Cancelled, Sample, Take
from llmft.generation.stream import Stream
from llmft.models.attention.known_masks import known_padding
from llmft.models.dtype import answering_precision, autocast
from llmft.utils.determinism import lifted
from llmft.utils.device import sent
from llmft.utils.errors import UserError
from llmft.utils.modules import eval_mode

# Called between two steps with the number of running sequences; returns new ones to admit.
Admit = Callable[[int], Sequence[Stream]]
# Settings under which the logits of a sequence depend on its own tokens alone. Others (penalties, a minimum length) may count
# padding or steps, so that a sequence must stay in the batch that it started in.
MOVABLE = {"max_new_tokens", "do_sample", "num_beams", *SAMPLING_KEYS}
NEUTRAL = {"repetition_penalty": 1.0, "no_repeat_ngram_size": 0}
OF_BEAMS = {"num_beams", "length_penalty", "early_stopping"}
# Settings that read ids, but no logits of the prompt; a prefix may be known as long as the ids stay padded as they were.
OF_IDS = {*NEUTRAL, *OF_BEAMS, "min_length", "min_new_tokens"}


class Decoder:
    """Decodes sequences of one model: greedy, sampled (each with its own random numbers), or by beam search.

    Args:
        model: A transformers or peft model.
        codec: Its tokenizer and prompt template.
        settings: Keys of transformers' GenerationConfig.
        adapter: Whether the model's adapter, if it has one, is active.
        precision: As for ``Generator``.

    Raises:
        UserError: A setting is unknown, contradicts another, or is not supported.
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
        self.model, self.codec, self.settings, self.adapter = model, codec, settings, adapter
        self.precision = precision
        self.config = generation_config(model, codec, settings)
        self.sampling, self.beams = sampling_settings(settings), settings.get("num_beams", 1)
        if self.sampling is not None and self.beams > 1:
            raise UserError(
                f"generation.num_beams={self.beams}: beam search does not sample; pass generation.num_beams=1,"
                " or generation.do_sample=false"
            )
        # tokens are sampled by a logits processor, so for transformers every sequence is greedy
        greedy = {name: v for name, v in settings.items() if name not in (*SAMPLING_KEYS, "do_sample", *OF_BEAMS)}
        self.greedy_config = generation_config(model, codec, greedy)
        self.prefill_config = generation_config(model, codec, {"max_new_tokens": 1})
        self.greedy_config.return_dict_in_generate = self.prefill_config.return_dict_in_generate = True
        self.stop_ids = frozenset(stop_ids(model, codec))
        layers = [] if model.config.is_encoder_decoder else DynamicCache(config=model.config).layers
        is_plain = bool(layers) and all(type(layer) is DynamicLayer for layer in layers)
        self.can_join = is_plain and all(
            name in MOVABLE or NEUTRAL.get(name, ...) == value for name, value in settings.items()
        )
        pad_id, scope = codec.tokenizer.pad_token_id, (model, adapter)
        knows = is_plain and settings.keys() <= MOVABLE | OF_IDS
        self.prefill = Prefill(model, pad_id, scope, self._states) if knows else None

    @contextmanager
    def inference(self) -> Iterator[None]:
        """The model in eval mode, without gradients, with any algorithm, and without its adapter for the base model."""
        device, base = self.model.device, nullcontext() if self.adapter else self.model.disable_adapter()
        mixed = autocast(device, answering_precision(device, self.precision))
        with lifted(device), eval_mode(self.model), torch.inference_mode(), mixed, base:
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
        if self.prefill:
            with self.inference():
                self.prefill.share(prompts)

    def remember(self, prefixes: PrefixCache, *, adds: bool = True) -> None:
        """Take known prefixes of prompts from a cache, and add new prompts and their answers to it.

        Beam search, encoder-decoders, models with a sliding window, and settings outside ``MOVABLE`` use none.

        Args:
            prefixes: The cache.
            adds: Whether new ones are added.
        """
        if self.prefill and self.can_join and self.prefill.can_share and prefixes.limit:
            self.prefill.prefixes, self.prefill.remembers = prefixes, adds

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
            if rest and self.can_join and self.prefill:
                self._decode_continuously(rest, admit, self.prefill)
            elif rest:
                self._generate(rest, self._inputs(rest), lambda: False, full=_is_full(rest))

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
        mask = sent(batch.mask, self.model.device)
        inputs = {"input_ids": batch.ids, "attention_mask": mask, "past_key_values": batch.cache}
        before = [stream for stream in batch.streams if stream.started]
        out = self._generate(batch.streams, inputs, pause, full=bool(batch.mask.all()))
        mask = pad(batch.mask, (0, out.sequences.shape[1] - batch.ids.shape[1]), value=1)
        after = Batch(batch.streams, out.sequences, mask, out.past_key_values)
        if self.prefill:
            new_or_ended = [stream for stream in batch.streams if stream.reason or stream not in before]
            self.prefill.remember(after, new_or_ended)
        return running(after)

    def _states(self, ids: Sequence[int], known: Prefix) -> States:
        """Keys and values of token ids, of which those of a prefix are known."""
        inputs = generation_batch([ids], self.codec.tokenizer.pad_token_id, pad_left=True)
        return self._computed(self._sent(inputs), known.states, full=True)

    def _computed(self, inputs: dict[str, Any], known: States | None, *, full: bool) -> States:
        """Keys and values of prompts, of whose first columns they are known."""
        cache = cache_of(self.model, known) if known else None
        with known_padding(self.model.device, full=full):
            out = self.model.generate(**inputs, past_key_values=cache, generation_config=self.prefill_config)
        return [(layer.keys, layer.values) for layer in out.past_key_values.layers]

    def _generate(
        self, streams: Sequence[Stream], inputs: dict[str, Any], pause: Callable[[], bool], *, full: bool
    ) -> Any:
        """Greedy steps until all sequences have ended, or for a pause; ``full`` if the prompts have no padding."""
        config = copy.copy(self.greedy_config)
        config.max_new_tokens = max(stream.limit - len(stream.ids) for stream in streams)
        take = Take(streams, self._start(inputs), pause)
        with known_padding(self.model.device, full=full):
            out = self.model.generate(
                **inputs,
                generation_config=config,
                logits_processor=LogitsProcessorList([Sample(streams)] if any(s.sampling for s in streams) else []),
                stopping_criteria=StoppingCriteriaList([take]),
            )
        take.finish()
        return out

    def _beam_search(self, streams: Sequence[Stream], limit: int) -> None:
        """Beam search by transformers: the whole batch at once, its answers at the end."""
        config = copy.copy(self.config)
        config.max_new_tokens = limit
        inputs = self._inputs(streams)
        if self.prefill and self.prefill.can_share and inputs["input_ids"].shape[1] > 1:
            inputs["past_key_values"] = self._once_for_all_beams(inputs, full=_is_full(streams))
        stop = StoppingCriteriaList([Cancelled(streams)])
        with known_padding(self.model.device, full=_is_full(streams)):
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
        """Prompts as transformers takes them, with the keys and values of their common prefix where that saves work."""
        pad_left = not self.model.config.is_encoder_decoder
        prompts = [stream.prompt for stream in streams]
        pad_id, known = self.codec.tokenizer.pad_token_id, self.prefill.left_padded(prompts) if self.prefill else None
        inputs = self._sent(generation_batch(prompts, pad_id, pad_left=pad_left))
        return {**inputs, "past_key_values": cache_of(self.model, known)} if known else inputs

    def _sent(self, inputs: dict[str, torch.Tensor]) -> dict[str, Any]:
        return {name: sent(tensor, self.model.device) for name, tensor in inputs.items()}

    def _once_for_all_beams(self, inputs: dict[str, Any], *, full: bool) -> DynamicCache:
        """Keys and values of all but the last token of prompts, which transformers would compute for each beam."""
        known = inputs.get("past_key_values")
        known = known and [(layer.keys, layer.values) for layer in known.layers]
        shorter = {name: inputs[name][:, :-1] for name in ("input_ids", "attention_mask")}
        states = self._computed(shorter, known, full=full)
        beams = [tuple(one.repeat_interleave(self.beams, 0) for one in layer) for layer in states]
        return cache_of(self.model, beams)


def _limit(stream: Stream) -> int:
    return stream.limit


def _is_full(streams: Sequence[Stream]) -> bool:
    """Whether a batch of their prompts has no padding."""
    return len({len(stream.prompt) for stream in streams}) == 1
