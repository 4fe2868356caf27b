"""Continuous batching gives the answers of transformers' generate, whichever sequences join and leave the batch."""

import random

import pytest
import torch

from llmft.data.records import Turn
from llmft.generation.decoder import Decoder
from llmft.generation.generator import Generator
from llmft.generation.sampling import Sampling
from llmft.generation.stream import Answer
from llmft.utils.errors import UserError
from tests.integration.generation.test_generator import sharpened

BEAMS = {"num_beams": 4, "repetition_penalty": 1.3, "no_repeat_ngram_size": 3}
CONTEXTS = [(Turn("user", "word " * (7 * number % 31 + 1) + str(number)),) for number in range(12)]


@pytest.fixture(scope="module")
def models():
    return {}


def decoder(name, load_config, models, **settings):
    if name not in models:
        models[name] = sharpened(name, load_config)
    model, codec = models[name]
    return Decoder(model, codec, {"max_new_tokens": 12, **settings})


def prompts(made):
    return [made.codec.prompt_ids(made.codec.template.render(context)) for context in CONTEXTS]


def streams(made, **options):
    return [made.stream(prompt, seed=0, **options) for prompt in prompts(made)]


def plain(made):
    """The answers of transformers' generate, one prompt at a time."""
    answers = []
    for prompt in prompts(made):
        ids = torch.tensor([prompt])
        with torch.no_grad():
            out = made.model.eval().generate(ids, attention_mask=torch.ones_like(ids), generation_config=made.config)
        tokens = out[0, 1 if made.model.config.is_encoder_decoder else len(prompt) :].tolist()
        end = next((i for i, token in enumerate(tokens) if token in made.stop_ids), None)
        answers.append(Answer(made.codec.decode(tokens[:end]), end is not None, len(tokens[:end])))
    return answers


def answer_all(made, sequences, max_batch=5):
    """Start with some sequences, and admit others at random when there is room."""
    waiting, chance = list(sequences), random.Random(0)

    def admit(running):
        new = []
        while waiting and running + len(new) < max_batch and chance.random() < 0.4:
            new.append(waiting.pop(0))
        return new

    while waiting:
        made.run([waiting.pop(0) for _ in range(min(2, max_batch, len(waiting)))], admit)
    return [stream.answer() for stream in sequences]


@pytest.mark.parametrize(
    "settings", [{}, pytest.param(BEAMS, marks=pytest.mark.slow)], ids=["greedy", "beam"]
)  # beams are served in test_serve.py
@pytest.mark.parametrize(
    ("name", "joins"), [("tiny_t5", False), ("tiny_gpt2", True), ("tiny_llama", True), ("tiny_gemma", False)]
)
def test_the_answers_are_those_of_generate(name, joins, settings, load_config, models):
    made = decoder(name, load_config, models, **settings)
    assert made.can_join == (joins and not settings)
    wanted = plain(made)
    assert len({answer.text for answer in wanted}) > 1 or name == "tiny_gemma"
    assert answer_all(made, streams(made)) == wanted


@pytest.mark.parametrize("name", ["tiny_t5", "tiny_llama"])
def test_a_sampled_answer_depends_on_its_seed_and_not_on_its_batch(name, load_config, models):
    made = decoder(name, load_config, models)

    def sampled(max_batch):
        asked = streams(made)
        for stream in asked:
            stream.sampling = Sampling({"temperature": 4.0, "top_p": 0.95}, 7, prompt=stream.prompt)
        return answer_all(made, asked, max_batch)

    assert sampled(1) == sampled(5) != plain(made)


def test_greedy_and_sampled_sequences_share_a_batch(load_config, models):
    made = decoder("tiny_gpt2", load_config, models)
    asked = streams(made)
    for stream in asked[::2]:
        stream.sampling = Sampling({"temperature": 4.0}, 1)
    assert answer_all(made, asked)[1::2] == plain(made)[1::2]


@pytest.mark.parametrize("name", ["tiny_t5", "tiny_gpt2"])
def test_a_cancelled_sequence_leaves_the_batch_and_changes_no_other(name, load_config, models):
    made = decoder(name, load_config, models, max_new_tokens=30)
    asked = streams(made)[:4]
    said = []

    def leave(piece):
        said.append(piece)
        asked[0].cancelled = True

    asked[0].emit = leave
    made.run(asked)
    assert asked[0].reason == "cancelled"
    assert len(said) == 1
    assert [stream.answer() for stream in asked[1:]] == plain(made)[1:4]


def test_cancelled_streams_are_not_decoded(load_config, models, monkeypatch):
    made = decoder("tiny_gpt2", load_config, models)
    asked = streams(made)
    for stream in asked:
        stream.cancelled = True
    monkeypatch.setattr(made.model, "generate", None)
    made.run(asked)
    assert {stream.reason for stream in asked} == {"cancelled"}


def test_settings_that_are_not_supported_are_refused(load_config, models):
    with pytest.raises(UserError, match="beam search does not sample"):
        decoder("tiny_gpt2", load_config, models, num_beams=2, do_sample=True)
    model, codec = models["tiny_gpt2"]
    several = Generator(model, codec, {"samples": 3, "do_sample": True, "batch_size": 1, "seed": 0})
    with pytest.raises(UserError, match="samples=3: chat and serve sample one answer"):
        several.stream_decoder()


def test_settings_that_count_positions_keep_a_sequence_in_its_batch(load_config, models):
    made = decoder("tiny_gpt2", load_config, models, min_new_tokens=12)
    assert not made.can_join
    assert answer_all(made, streams(made)) == plain(made)


def test_speculative_decoding_takes_every_token(load_config, models):
    made = decoder("tiny_gpt2", load_config, models, prompt_lookup_num_tokens=3, max_new_tokens=40)
    wanted = plain(decoder("tiny_gpt2", load_config, models, max_new_tokens=40))[:3]
    assert answer_all(made, streams(made)[:3], max_batch=1) == wanted


def test_the_models_modes_are_restored(load_config, models):
    made = decoder("tiny_gpt2", load_config, models)
    made.model.train()
    made.run(streams(made)[:1])
    assert made.model.training
    assert torch.is_grad_enabled()
