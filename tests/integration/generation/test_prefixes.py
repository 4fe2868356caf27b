"""Prefixes that prompts share, and those of earlier prompts, are computed once, and change no answer."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from llmft.generation.decoder import Decoder
from llmft.generation.generator import Generator
from llmft.generation.prefill import NONE, can_share
from llmft.generation.prefix_cache import PrefixCache
from llmft.generation.sampling import Sampling
from tests.integration.generation.test_decoder import answer_all, decoder
from tests.integration.generation.test_generator import sharpened

LONG = list(range(40, 100))
# a prefix of all, of one token, of none; a prompt that begins another; the same prompt twice
PROMPTS = [[*LONG, 33], [*LONG, 34, 35, 36], [*LONG[:1], 37, 38], [50, 51], LONG, LONG, [*LONG[:30], 39, *LONG]]
NAMES = ["tiny_gpt2", "tiny_llama"]


@pytest.fixture(scope="module")
def models():
    return {}


def streams(made, prompts=PROMPTS, **options):
    return [made.stream(prompt, seed=0, **options) for prompt in prompts]


def alone(made, prompts=PROMPTS):
    """The ids of transformers' generate, one prompt at a time."""
    found = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        with torch.no_grad():
            out = made.model.eval().generate(ids, attention_mask=torch.ones_like(ids), generation_config=made.config)
        tokens = out[0, len(prompt) :].tolist()
        found.append(tokens[: next((i for i, token in enumerate(tokens) if token in made.stop_ids), None)])
    return found


def computed(model):
    """The shape of each input of the model, as a list that grows."""
    seen = []
    model.register_forward_pre_hook(lambda _, __, given: seen.append(tuple(given["input_ids"].shape)), with_kwargs=True)
    return seen


@pytest.mark.parametrize("name", NAMES)
def test_answers_do_not_depend_on_what_is_shared(name, load_config, models):
    made = decoder(name, load_config, models)
    wanted = alone(made)
    assert len(set(map(tuple, wanted))) > 2
    cache = PrefixCache(64)
    made.remember(cache)
    for max_batch in (len(PROMPTS), 5, 1):  # the later ones find all of it
        asked = streams(made)
        answer_all(made, asked, max_batch)
        assert [stream.ids for stream in asked] == wanted
    assert cache.hits > len(PROMPTS)


@pytest.mark.parametrize("name", NAMES)
def test_logits_behind_a_known_prefix(name, load_config, models):
    made = decoder(name, load_config, models)
    with made.inference():
        whole = made._states(LONG, NONE)
        known = NONE._replace(length=40, states=made._states(LONG[:40], NONE))
        for layer, wanted in zip(made._states(LONG, known), whole, strict=True):
            for one, other in zip(layer, wanted, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_a_common_prefix_is_computed_once(load_config):
    model, codec = sharpened("tiny_llama", load_config)
    seen = computed(model)
    made = Generator(model, codec, {"max_new_tokens": 1, "batch_size": 4, "seed": 0})
    made.continued([[*LONG, 33], [*LONG, 34], [*LONG, 35], [*LONG, 36]])
    assert seen == [(1, 60), (4, 1)]


def test_a_common_prefix_is_computed_once_for_all_batches(load_config):
    model, codec = sharpened("tiny_llama", load_config)
    seen = computed(model)
    made = Generator(model, codec, {"max_new_tokens": 1, "batch_size": 1, "seed": 0})
    made.continued([[*LONG, 33], [*LONG, 34, 35], [*LONG, 35, 36, 37]])
    assert seen == [(1, 60), (1, 1), (1, 2), (1, 3)]


def test_an_earlier_turn_is_not_computed_again(load_config):
    model, codec = sharpened("tiny_gpt2", load_config)
    made, cache = Decoder(model, codec, {"max_new_tokens": 5}), PrefixCache(64)
    made.remember(cache)
    first = made.stream(LONG, seed=0)
    made.run([first])
    assert len(first.ids) == 5
    seen = computed(model)
    # the last token of an answer was never the model's input
    made.run([made.stream([*LONG, *first.ids, 33, 34], seed=0, limit=1)])
    assert seen == [(1, 3)]
    assert (cache.hits, cache.tokens) == (1, len(LONG) + 4)


def test_a_common_prefix_goes_on_behind_a_stored_one(load_config, models):
    made = decoder("tiny_gpt2", load_config, models, max_new_tokens=4)
    made.remember(PrefixCache(64))
    made.run([made.stream(LONG[:20], seed=0, limit=1)])
    seen = computed(made.model)
    prompts = [[*LONG, 33], [*LONG, 34]]
    for shapes in ([(1, 40), (2, 1)], [(2, 1)]):  # the second time both are stored
        seen.clear()
        asked = streams(made, prompts)
        made.run(asked)
        assert seen[: len(shapes)] == shapes
        assert [stream.ids for stream in asked] == alone(made, prompts)


def test_a_prompt_that_joins_finds_those_that_run(load_config):
    model, codec = sharpened("tiny_gpt2", load_config)
    made = Decoder(model, codec, {"max_new_tokens": 6})
    made.remember(PrefixCache(64))
    seen = computed(model)
    late = made.stream([*LONG, 34, 35], seed=0)
    waiting = [late]
    made.run([made.stream([*LONG, 33], seed=0)], lambda _: [waiting.pop()] if waiting else [])
    assert seen[:3] == [(1, 61), (1, 1), (1, 2)]
    assert late.ids == alone(made, [late.prompt])[0]


def test_sampled_answers_and_cancelled_ones(load_config, models):
    made = decoder("tiny_llama", load_config, models)

    def sampled():
        asked = streams(made)
        for stream in asked:
            stream.sampling = Sampling({"temperature": 4.0}, 7, prompt=stream.prompt)
        asked[1].emit = lambda _: setattr(asked[1], "cancelled", True)
        made.run(asked)
        return [stream.ids for stream in asked]

    assert made.prefill
    made.prefill.prefixes, made.prefill.remembers = None, False
    wanted = sampled()
    made.remember(PrefixCache(64))
    assert sampled() == sampled() == wanted


def test_the_base_model_does_not_see_the_prefixes_of_the_adapter(load_config):
    model, codec = sharpened("tiny_llama", load_config)
    torch.manual_seed(0)
    tuned = get_peft_model(model, LoraConfig(r=4, init_lora_weights=False, target_modules=["q_proj", "v_proj"]))
    cache, answers = PrefixCache(64), {}
    for adapter in (True, False):
        made = Decoder(tuned, codec, {"max_new_tokens": 6}, adapter=adapter)
        with made.inference():
            wanted = alone(made, PROMPTS[:2])
        made.remember(cache)
        for _ in range(2):
            asked = streams(made, PROMPTS[:2])
            made.run(asked)
            assert [stream.ids for stream in asked] == wanted
        answers[adapter] = wanted
    assert answers[True] != answers[False]


def test_models_whose_keys_depend_on_more_than_the_prefix_share_nothing(load_config):
    model, _ = sharpened("tiny_llama", load_config)
    assert can_share(model)
    model.config.rope_parameters = {"rope_type": "dynamic", "factor": 2.0}
    assert not can_share(model)


BEAM = {"num_beams": 3, "max_new_tokens": 6}
PENALIZED = {"repetition_penalty": 1.3, "no_repeat_ngram_size": 3}


@pytest.mark.parametrize(("name", "settings"), [
    ("tiny_llama", BEAM), ("tiny_gpt2", BEAM | PENALIZED), ("tiny_llama", BEAM | PENALIZED | {"length_penalty": 0.5}),
    ("tiny_gpt2", PENALIZED | {"max_new_tokens": 6}),
])  # fmt: skip
def test_beams_and_penalties_share_prefixes_too(name, settings, load_config):
    """The answers of the same batch without: penalties read the padding too."""
    model, codec = sharpened(name, load_config)
    alike = [[*LONG, 33], [*LONG, 34, 35, 36], [*LONG, *LONG[:20]], LONG]
    made, plain = Decoder(model, codec, settings), Decoder(model, codec, settings)
    plain.prefill = None
    for prompts in (alike, PROMPTS):
        wanted = streams(plain, prompts)
        plain.run(wanted)
        for share in (False, True):
            asked = streams(made, prompts)
            if share:
                made.share(prompts)
            made.run(asked)
            assert [stream.ids for stream in asked] == [stream.ids for stream in wanted]
    if "no_repeat_ngram_size" not in settings:
        assert [stream.ids for stream in wanted] == alone(made, PROMPTS)


def test_a_prompt_is_not_computed_for_each_beam(load_config):
    model, codec = sharpened("tiny_llama", load_config)
    seen = computed(model)
    made = Generator(model, codec, {"num_beams": 3, "max_new_tokens": 2, "batch_size": 2, "seed": 0})
    made.continued([[*LONG, 33], [*LONG, 34, 35], [*LONG, 36, 37, 38], [*LONG, 39, 33, 40]])
    first, second = [(2, 1), (6, 1), (6, 1)], [(2, 2), (6, 1), (6, 1)]
    assert seen == [(1, 60), *first, *second]


def test_samples_of_a_prompt_compute_it_once(load_config):
    model, codec = sharpened("tiny_llama", load_config)
    seen = computed(model)
    settings = {"max_new_tokens": 2, "batch_size": 2, "seed": 0, "samples": 3, "do_sample": True, "temperature": 4.0}
    made = Generator(model, codec, settings)
    prompts = [[*LONG, 33], [*LONG[:50], 34, 35, 36], [*LONG, 33, 34], [50, 51]]
    wanted = [Generator(model, codec, {**settings, "batch_size": 1}).continued([prompt])[0] for prompt in prompts]
    seen.clear()
    assert made.continued(prompts) == wanted
    step = (2, 1)
    # of two tokens no prefix is kept, so they are computed with the last token of the other prompt
    first = [(1, 2), (1, 53), step, (2, 2), step, (2, 2), step]
    assert seen == [*first, (1, 60), (2, 2), step, step, step, step, step]


def test_calls_with_some_of_the_prompts_share_what_all_have_in_common(load_config):
    """As ``answer`` calls it for a file: the common prefix of all once; what more a call's prompts share goes on from it."""
    model, codec = sharpened("tiny_llama", load_config)
    seen = computed(model)
    made = Generator(model, codec, {"max_new_tokens": 1, "batch_size": 2, "seed": 0})
    longer = [*LONG, *LONG[:40]]
    prompts = [[*longer, 33], [*longer, 34], [*LONG, 35], [*LONG, 36]]
    shared = made.sharing(prompts)
    answers = [answer for rows in (prompts[:2], prompts[2:]) for answer in shared.continued(rows)]
    assert seen == [(1, 60), (1, 40), (2, 1), (2, 1)]
    assert answers == made.continued(prompts)
