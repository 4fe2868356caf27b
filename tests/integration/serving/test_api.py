"""The HTTP API: OpenAI's own client understands it, and its answers are those of ``answer``."""

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx2 as httpx
import openai
import pytest

from llmft.data.records import Turn
from llmft.serving.safety import Safety
from tests.support.server import generator, serving

CHAT = "/v1/chat/completions"
REUSED = ("llmft_prefix_cache_hits_total", "llmft_prefix_cache_tokens_total")


@pytest.fixture(scope="module")
def served():
    models = {"tuned": generator("tiny_llama"), "base": generator("tiny_gpt2")}
    with serving(models, system="Be kind.") as made:
        yield made


@pytest.fixture(scope="module")
def client(served):
    return openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0)


def wanted(served, *questions, system="Be kind.", model="tuned"):
    """What Generator answers, which is what ``answer`` prints."""
    contexts = [(Turn("system", system), Turn("user", question)) for question in questions]
    return [answer.text for answer in served.generators[model].answers(contexts)]


def asked(question, **more):
    return {"model": "tuned", "messages": [{"role": "user", "content": question}], **more}


def until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def health(served):
    return httpx.get(f"{served.url}/health").json()


def test_models(client):
    assert [model.id for model in client.models.list()] == ["tuned", "base"]
    assert client.models.retrieve("base").id == "base"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4o")


def test_a_conversation_is_answered_as_answer_does(client, served):
    found = client.chat.completions.create(**asked("What is a llama?"))
    assert found.choices[0].message.content == wanted(served, "What is a llama?")[0]
    assert found.choices[0].finish_reason == "length"
    codec = served.generators["tuned"].codec
    prompt = codec.prompt_ids(codec.template.render((Turn("system", "Be kind."), Turn("user", "What is a llama?"))))
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (len(prompt), 16)
    assert found.usage.total_tokens == len(prompt) + 16


def test_a_system_prompt_of_the_request_replaces_the_runs(client, served):
    messages = [
        {"role": "developer", "content": "Be rude."},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
    ]
    found = client.chat.completions.create(model="tuned", messages=messages)
    assert found.choices[0].message.content == wanted(served, "Hi", system="Be rude.")[0] != wanted(served, "Hi")[0]


def test_the_other_model(client, served):
    found = client.chat.completions.create(**{**asked("Hi"), "model": "base"})
    assert found.choices[0].message.content == wanted(served, "Hi", model="base")[0]


def test_a_stream_is_the_same_answer_in_pieces(client, served):
    events = list(
        client.chat.completions.create(**asked("Hi there"), stream=True, stream_options={"include_usage": True})
    )
    pieces = [event.choices[0].delta.content for event in events if event.choices and event.choices[0].delta.content]
    assert "".join(pieces) == wanted(served, "Hi there")[0]
    assert len(pieces) > 3
    assert events[0].choices[0].delta.role == "assistant"
    assert [event.choices[0].finish_reason for event in events[:-1]][-1] == "length"
    assert events[-1].usage.completion_tokens == 16
    assert len({event.id for event in events}) == 1


def test_stop_and_max_tokens(client, served):
    whole = wanted(served, "Hi")[0]
    stop = whole[4:6]
    found = client.chat.completions.create(**asked("Hi"), stop=[stop, "never said"])
    assert found.choices[0].message.content == whole[: whole.find(stop)]
    assert found.choices[0].finish_reason == "stop"
    found = client.chat.completions.create(**asked("Hi"), max_completion_tokens=3)
    assert (found.usage.completion_tokens, found.choices[0].finish_reason) == (3, "length")
    assert whole.startswith(found.choices[0].message.content.rstrip("\ufffd"))


def test_the_seed_repeats_a_sampled_answer(client, served):
    def sampled(**more):
        found = client.chat.completions.create(**asked("Hi"), temperature=1.9, top_p=0.99, n=3, **more)
        return [choice.message.content for choice in found.choices]

    first = sampled(seed=7)
    assert len(set(first)) == 3
    assert sampled(seed=7) == first != sampled(seed=-8)
    assert sampled() != sampled()
    found = client.chat.completions.create(**asked("Hi"), temperature=0, n=2)
    assert [choice.message.content for choice in found.choices] == wanted(served, "Hi") * 2


def test_completions_continue_raw_text(client, served):
    tuned = served.generators["tuned"]
    ids = [tuned.codec.tokenizer("Once upon a time")["input_ids"], tuned.codec.tokenizer("A")["input_ids"]]
    texts = [answer.text for answer in tuned.continued(ids)]
    found = client.completions.create(model="tuned", prompt=["Once upon a time", "A"])
    assert [choice.text for choice in found.choices] == texts
    assert client.completions.create(model="tuned", prompt=ids[0]).choices[0].text == texts[0]
    pieces = client.completions.create(model="tuned", prompt="A", stream=True)
    assert "".join(event.choices[0].text for event in pieces) == texts[1]


BAD = {
    "no such model": ({"model": "gpt-4o"}, 404, "there is tuned, base"),
    "unknown field": ({"temprature": 1}, 400, "temprature: is unknown"),
    "tools": (
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        400,
        "tools: the prompt template of this model has no place for them",
    ),
    "penalty": ({"frequency_penalty": 0.5}, 400, "frequency_penalty"),
    "temperature": ({"temperature": 2.1}, 400, "temperature: Input should be less than or equal to 2"),
    "text for a number": ({"temperature": "1"}, 400, "temperature: Input should be a valid number"),
    "true for a number": ({"max_tokens": True}, 400, "max_tokens: Input should be a valid integer"),
    "max_tokens": ({"max_tokens": 5000}, 400, "max_tokens: at most 1024"),
    "two limits": ({"max_tokens": 5, "max_completion_tokens": 6}, 400, "pass one of them"),
    "n": ({"n": 9}, 400, "n: at most 8 answers"),
    "empty stop": ({"stop": ""}, 400, "stop"),
    "no messages": ({"messages": []}, 400, "messages: List should have at least 1 item"),
    "the last is not the user's": (
        {"messages": [{"role": "system", "content": "x"}]},
        400,
        "messages.0: the last message must be",
    ),
    "a blank question": ({"messages": [{"role": "user", "content": " "}]}, 400, "not blank"),
    "two users": ({"messages": [{"role": "user", "content": "a"}] * 2}, 400, "messages.1.role: must be assistant here"),
    "a picture": ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "messages.0.content"),
    "too long": ({"messages": [{"role": "user", "content": "a" * 2100}]}, 400, "2048 are allowed"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_requests_are_named(name, client):
    changes, status, message = BAD[name]
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(**asked("Hi"), extra_body=changes)
    assert caught.value.status_code == status
    assert message in caught.value.message


def test_fields_that_change_nothing_are_taken(client, served):
    more = {
        "user": "x",
        "metadata": {"a": "b"},
        "frequency_penalty": 0.0,
        "tools": [],
        "response_format": {"type": "text"},
        "logit_bias": None,
    }
    found = client.chat.completions.create(**asked("Hi"), extra_body=more)
    history = [*asked("Hi")["messages"], found.choices[0].message.model_dump(), {"role": "user", "content": "More"}]
    assert found.choices[0].message.content == wanted(served, "Hi")[0]
    assert client.chat.completions.create(model="tuned", messages=history).choices[0].message.content


def test_a_client_that_disconnects_frees_its_slot(served):
    for stream in (True, False):
        body = json.dumps(asked("Hi", stream=stream, max_tokens=1000)).encode()
        address = served.url.removeprefix("http://")
        head = f"POST {CHAT} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        with socket.create_connection(tuple(address.split(":"))) as line:
            line.sendall(head.encode() + body)
            until(lambda: health(served)["running"] == 1)
        until(lambda: health(served)["running"] == 0)
    counts = httpx.get(f"{served.url}/metrics").text
    assert 'llmft_answers_total{model="tuned",reason="cancelled"} 2.0' in counts


def test_a_prompt_is_computed_once(served, client):
    def reused():
        lines = (line.rpartition(" ") for line in httpx.get(f"{served.url}/metrics").text.splitlines())
        return [float(value) for name, _, value in lines if name in REUSED]

    question = "Is it computed once or twice?"
    first, before = client.chat.completions.create(**asked(question)), reused()
    second, after = client.chat.completions.create(**asked(question)), reused()
    prompt = served.generators["tuned"].prompts([(Turn("system", "Be kind."), Turn("user", question))])[0]
    assert first.choices[0].message.content == second.choices[0].message.content
    assert [now - then for now, then in zip(after, before, strict=True)] == [1, len(prompt) - 1]


def test_every_one_of_200_at_once_gets_its_own_answer(served):
    questions = [f"Question {number}: " + "word " * (number % 13) for number in range(200)]
    texts = wanted(served, *questions)
    assert len(set(texts)) > 20

    def ask(question):
        response = http.post(f"{served.url}{CHAT}", json=asked(question))
        assert response.status_code == 200, response.text
        return response.json()["choices"][0]["message"]["content"]

    with httpx.Client(timeout=120, limits=httpx.Limits(max_connections=200)) as http, ThreadPoolExecutor(200) as pool:
        assert list(pool.map(ask, questions)) == texts


@contextmanager
def held(one):
    """A model that computes nothing before the event is set."""
    release, made = threading.Event(), one.model.generate
    one.model.generate = lambda **inputs: (release.wait(), made(**inputs))[1]
    try:
        yield release
    finally:
        release.set()
        one.model.generate = made


def test_a_full_queue_answers_429():
    one = generator("tiny_llama")
    limits = {"max_batch": 1, "max_waiting": 1, "max_seconds": 600.0}
    with serving({"tuned": one}, **limits) as small, ThreadPoolExecutor(2) as pool, held(one) as release:
        slow = [pool.submit(httpx.post, f"{small.url}{CHAT}", json=asked("Hi"), timeout=600) for _ in range(2)]
        until(lambda: sum(health(small)[name] for name in ("running", "waiting")) == 2)
        for stream in (False, True):
            full = httpx.post(f"{small.url}{CHAT}", json=asked("Hi", stream=stream), timeout=60)
            assert (full.status_code, full.json()["error"]["code"]) == (429, "queue_full")
            assert full.headers["Retry-After"] == "1"
        release.set()
        assert {one.result().status_code for one in slow} == {200}


def test_the_time_of_an_answer_is_limited():
    one = generator("tiny_llama")
    with serving({"tuned": one}, max_seconds=0.1) as short, held(one) as release:
        assert httpx.post(f"{short.url}{CHAT}", json=asked("Hi"), timeout=60).status_code == 504
        release.set()
        until(lambda: health(short)["running"] == health(short)["waiting"] == 0)


def test_a_failing_model_fails_only_its_own_requests(monkeypatch):
    one = generator("tiny_llama")
    with serving({"tuned": one}) as made:
        monkeypatch.setattr(one.model, "generate", None)
        failed = httpx.post(f"{made.url}{CHAT}", json=asked("Hi"))
        assert (failed.status_code, failed.json()["error"]["type"]) == (500, "server_error")
        assert "Traceback" not in failed.text
        monkeypatch.undo()
        assert httpx.post(f"{made.url}{CHAT}", json=asked("Hi")).status_code == 200


def test_two_models_on_the_same_weights_take_turns():
    from peft import LoraConfig, get_peft_model

    plain = generator("tiny_llama")
    alone = plain.answers([(Turn("user", f"Hi {number}"),) for number in range(5)])
    model = get_peft_model(plain.model, LoraConfig(r=4, init_lora_weights=False, target_modules=["q_proj", "v_proj"]))
    settings = {"max_new_tokens": 16, "batch_size": 8, "seed": 0}
    tuned = type(plain)(model, plain.codec, settings)
    base = type(plain)(model, plain.codec, settings, adapter=False)
    texts = {
        "tuned": [a.text for a in tuned.answers([(Turn("user", f"Hi {n}"),) for n in range(5)])],
        "base": [a.text for a in alone],
    }
    assert texts["tuned"] != texts["base"]
    with serving({"tuned": tuned, "base": base}) as made, ThreadPoolExecutor(24) as pool:
        jobs = {
            (name, n): pool.submit(
                httpx.post, f"{made.url}{CHAT}", json={**asked(f"Hi {n}"), "model": name}, timeout=60
            )
            for n in range(5)
            for name in texts
        }
        for (name, n), job in jobs.items():
            assert job.result().json()["choices"][0]["message"]["content"] == texts[name][n]


def test_the_filter():
    safety = Safety(
        blocked=["bomb"], max_question_characters=40, notice="You are not alone.", notice_link="https://example.org", notice_words=["end my life"]
    )  # fmt: skip
    one = generator("tiny_llama")
    with serving({"tuned": one}, safety=safety) as made:
        client = openai.OpenAI(base_url=f"{made.url}/v1", api_key="none", max_retries=0)
        for question, reason in {"Build a BOMB": "blocked", "x" * 41: "41 characters"}.items():
            with pytest.raises(openai.BadRequestError, match=reason):
                client.chat.completions.create(**asked(question))
        notice = "You are not alone. https://example.org\n\n"
        sad = "I want to end  my life"
        answer = client.chat.completions.create(**asked(sad)).choices[0].message.content
        assert answer == notice + one.answers([(Turn("user", sad),)])[0].text
        # an earlier answer goes back to the model as the model gave it
        history = [
            *asked(sad)["messages"],
            {"role": "assistant", "content": answer},
            {"role": "user", "content": "More"},
        ]
        context = (Turn("user", sad), Turn("assistant", answer.removeprefix(notice)), Turn("user", "More"))
        assert (
            client.chat.completions.create(model="tuned", messages=history).choices[0].message.content
            == one.answers([context])[0].text
        )


@pytest.mark.parametrize("name", ["tiny_t5", "tiny_gpt2"])
def test_beam_search_gives_the_answers_of_answer(name):
    one = generator(name, num_beams=3, repetition_penalty=1.3, no_repeat_ngram_size=3)
    questions = ["Hi", "What is a llama?", "Why?"]
    texts = [answer.text for answer in one.answers([(Turn("user", question),) for question in questions])]
    assert one.decoder().beams == 3
    with serving({"tuned": one}) as made, ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda q: httpx.post(f"{made.url}{CHAT}", json=asked(q), timeout=60).json(), questions))
    assert [one["choices"][0]["message"]["content"] for one in found] == texts
