"""CTranslate2 as the engine of ``serve``: answers of the torch engine, greedy and sampled, alone and with others."""

import functools
from concurrent.futures import ThreadPoolExecutor

import httpx2 as httpx
import pytest

from llmft import UserError
from llmft.data.records import Turn
from llmft.export.converted import convert
from llmft.generation.ctranslate2_decoder import _Batch, open_converted
from tests.support.server import generator, serving

QUESTIONS = (
    "Hi",
    "What is overfitting?",
    "Name three sorting algorithms, and say how fast each of them is on a sorted list.",
)
SAMPLED = {"do_sample": True, "temperature": 0.7, "seed": 3}


def asked(one):
    return [one.codec.prompt_ids(one.codec.template.render([Turn("user", text)])) for text in QUESTIONS]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Each model's engines once, whatever the order of the tests."""

    def make(name):
        plain, folder = generator(name, max_new_tokens=12), tmp_path_factory.mktemp("converted")
        convert(plain.model, plain.codec, folder)
        return plain, open_converted(folder, plain.codec, plain.given)

    return functools.cache(make)


@pytest.fixture(params=["tiny_llama", "tiny_t5", pytest.param("tiny_gpt2", marks=pytest.mark.slow)])
def engines(request, made):
    """The torch engine and the CTranslate2 engine of a model."""
    return made(request.param)


@pytest.mark.parametrize("settings", [{}, SAMPLED], ids=["greedy", "sampled"])
def test_answers_are_those_of_the_torch_engine(engines, settings):
    plain, converted = (one.with_settings(**settings) for one in engines)
    prompts = asked(plain)
    wanted = plain.continued(prompts)
    assert converted.continued(prompts) == wanted
    assert [converted.continued([prompt])[0] for prompt in prompts] == wanted
    assert len({answer.text for answer in wanted}) > 1


def test_a_sequence_joins_and_a_cancelled_one_leaves(engines):
    plain, converted = engines
    prompts = asked(plain)
    decoder = converted.decoder()
    first, late, gone = (decoder.stream(prompt, seed=0) for prompt in (prompts[1], prompts[0], prompts[2]))
    gone.cancelled = True
    waiting = [late]

    decoder.run([first, gone], lambda _: [waiting.pop()] if waiting else [])
    assert [first.answer(), late.answer()] == plain.continued([prompts[1], prompts[0]])
    assert gone.reason == "cancelled"


@pytest.mark.slow
def test_a_server_gives_them_to_many_clients_at_once(engines):
    plain, converted = engines
    seeds = [*range(6)] * 2
    sampler = plain.with_settings(do_sample=True, temperature=0.7, top_k=0)
    prompts = [plain.codec.prompt_ids(plain.codec.template.render([Turn("user", QUESTIONS[1])]))]
    wanted = [sampler.with_settings(seed=seed).continued(prompts)[0].text for seed in seeds]
    with serving({"mine": converted}) as made, ThreadPoolExecutor(12) as pool:

        def post(seed):
            body = {
                "model": "mine",
                "messages": [{"role": "user", "content": QUESTIONS[1]}],
                "temperature": 0.7,
                "seed": seed,
            }
            found = httpx.post(f"{made.url}/v1/chat/completions", json=body, timeout=120).json()
            return found["choices"][0]["message"]["content"]

        assert list(pool.map(post, seeds)) == wanted


def test_a_restart_costs_no_more_than_was_computed(engines):
    _, converted = engines
    decoder = converted.decoder()
    batch = _Batch(decoder.runtime, [decoder.stream([5] * 40, seed=0)])
    near, far = decoder.stream([5] * 50, seed=0), decoder.stream([5] * 100, seed=0)
    batch.taken = [3]
    assert batch.can_join([near])  # nothing is lost yet
    assert batch.can_join([far]) == decoder.runtime.is_encoder_decoder  # whose prompts are not in the decoder
    batch.taken = [40]
    assert batch.can_join([near])  # 90 prompt tokens are 1.4 steps, and 10 steps until the shorter one has caught up
    assert batch.can_join([far]) == decoder.runtime.is_encoder_decoder  # 60 steps for that


def test_settings_that_it_does_not_have_are_refused(engines):
    with pytest.raises(UserError, match=r"generation.num_beams=4: with CTranslate2, llmft decodes greedily or samples"):
        engines[1].with_settings(num_beams=4)
