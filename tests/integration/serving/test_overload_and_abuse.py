"""What strangers send: no 5xx, nothing of the machine in an answer, and the server is healthy after."""

import json
import logging
import random
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import httpx2 as httpx
import pytest
import schemathesis
import schemathesis.checks as checks
from hypothesis import HealthCheck, Phase, given, settings

from tests.support.server import generator, serving

KEY = "sk-0123456789"
CHAT = "/v1/chat/completions"
GOOD = {"model": "tuned", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
PATHS = (CHAT, "/v1/completions")


@pytest.fixture(scope="module")
def served():
    with serving({"tuned": generator("tiny_llama", max_new_tokens=3)}, body_seconds=1.0) as made:
        yield made


@pytest.fixture(scope="module")
def http(served):
    with httpx.Client(base_url=served.url, timeout=30) as client:
        yield client


@pytest.fixture(autouse=True)
def _healthy_after(http):
    yield
    assert http.get("/health").json()["status"] == "ok"
    assert http.post(CHAT, json=GOOD).status_code == 200


def refused(response, *statuses):
    assert response.status_code in statuses, response.text
    error = response.json()["error"]
    assert error["message"]
    assert set(error) == {"message", "type", "param", "code"}
    for told in ("Traceback", "site-packages", "/src/", "llmft/serving"):
        assert told not in response.text


def nested(depth):
    return b'{"model": ' + b'{"a":' * depth + b"1" + b"}" * depth + b"}"


BODIES = {
    "nothing": b"",
    "no JSON": b"hello",
    "half of it": json.dumps(GOOD).encode()[:-5],
    "NaN": b'{"model":"tuned","messages":[{"role":"user","content":"Hi"}],"temperature":NaN}',
    "infinity": b'{"model":"tuned","messages":[{"role":"user","content":"Hi"}],"top_p":-Infinity}',
    "1e999": b'{"model":"tuned","messages":[{"role":"user","content":"Hi"}],"temperature":1e999}',
    "a whole number of 5,000 digits": b'{"model":"tuned","messages":[{"role":"user","content":"Hi"}],"seed":'
    + b"9" * 5000
    + b"}",
    "a lone surrogate": b'{"model":"tuned","messages":[{"role":"user","content":"\\ud800"}]}',
    "a lone surrogate as a key": b'{"\\ud800":1,"model":"tuned","messages":[]}',
    "a lone surrogate as the model": b'{"model":"\\udfff","messages":[{"role":"user","content":"Hi"}]}',
    "bytes that are no UTF-8": b'{"model":"tuned","messages":[{"role":"user","content":"\xff\xfe"}]}',
    "deep lists": b"[" * 100_000,
    "deep objects": nested(50_000),
    "closed deep objects": nested(900),
    "null": b"null",
    "a list": b"[]",
    "too large": b'{"model":"' + b"x" * 1_000_000 + b'"}',
    "too large, in lists": b"[" * 50_000_000,
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", BODIES)
def test_awkward_bodies(name, path, http):
    response = http.post(path, content=BODIES[name], headers={"content-type": "application/json"})
    refused(response, 413 if "too large" in name else 400)


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""]
)
def test_other_content_types_are_refused(kind, http):
    refused(http.post(CHAT, content=json.dumps(GOOD), headers={"content-type": kind} if kind else {}), 400)


def test_a_body_without_a_length_is_counted(http):
    refused(
        http.post(CHAT, content=(b"x" * 100_000 for _ in range(30)), headers={"content-type": "application/json"}), 413
    )


def test_a_body_that_does_not_arrive(served):
    host, port = served.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as line:
        line.sendall(
            f"POST {CHAT} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{{".encode()
        )
        assert b" 408 " in line.recv(4096).split(b"\r\n")[0]


def test_wrong_paths_and_methods(http):
    refused(http.get(CHAT), 405)
    refused(http.post("/v1/embeddings", json={}), 404)
    refused(http.get("/../../etc/passwd"), 404)
    refused(http.get("/v1/models/%00%ff"), 404)


VALUES = [
    None,
    True,
    False,
    0,
    -1,
    1,
    10**30,
    0.5,
    -0.0,
    1e308,
    "",
    "x",
    "\x00",
    "\u202e",
    "</script>",
    [],
    [[]],
    [None],
    [1],
    ["a"],
    {},
    {"a": 1},
]
FIELDS = [
    "model",
    "messages",
    "prompt",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "n",
    "seed",
    "stop",
    "stream",
    "stream_options",
    "logprobs",
    "echo",
    "tools",
    "user",
    "metadata",
    "response_format",
    "logit_bias",
    "functions",
    "suffix",
    "best_of",
    "unknown",
]


def mutated(chance):
    """A good request with one to three things wrong."""
    body = {**GOOD, "messages": [dict(GOOD["messages"][0])], "prompt": "Hi"}
    for _ in range(chance.randint(1, 3)):
        where = (
            body["messages"][0]
            if chance.random() < 0.3
            and isinstance(body.get("messages"), list)
            and body["messages"]
            and isinstance(body["messages"][0], dict)
            else body
        )
        name = chance.choice(FIELDS if where is body else ["role", "content", "name", "tool_calls", "unknown"])
        if chance.random() < 0.2:
            where.pop(name, None)
        else:
            where[name] = chance.choice(VALUES)
    return body


def malformed(http, number, seed):
    chance = random.Random(seed)
    bodies = [(chance.choice(PATHS), mutated(chance)) for _ in range(number)]

    def post(one):
        path, body = one
        response = http.post(path, json=body)
        assert response.status_code < 500, (body, response.text)
        return response.status_code

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(post, bodies))


@pytest.mark.parametrize("number", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_requests_with_something_wrong(number, http):
    statuses = malformed(http, number, seed=number)
    assert statuses.count(400) > number / 3


def described(served, examples):
    """A test of every operation in the server's own description of itself; returns how often each was asked."""
    schema: Any = schemathesis.openapi.from_url(f"{served.url}/openapi.json")
    schema.config.generation.update(modes=list(schemathesis.GenerationMode))
    wanted = [checks.not_a_server_error, checks.response_schema_conformance]
    asked = Counter()
    for found in schema.get_all_operations():
        operation = found.ok()

        @settings(
            max_examples=examples,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=cast(Any, list(HealthCheck)),
        )
        @given(case=operation.as_strategy())
        def ask(case):
            asked[case.operation.label] += 1
            case.call_and_validate(checks=wanted)

        ask()
    return asked


def test_the_description_and_what_it_allows(served):
    asked = described(served, 6)
    assert asked["POST /v1/chat/completions"] >= 4
    assert asked["POST /v1/completions"] >= 4


@pytest.mark.slow
def test_the_description_and_what_it_allows_at_length(served):
    described(served, 150)


def test_every_answer_carries_the_headers(http):
    for response in (
        http.get("/"),
        http.get("/health"),
        http.get("/nope"),
        http.post(CHAT, json=GOOD),
        http.post(CHAT, content=b"{"),
    ):
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["X-Frame-Options"] == "DENY"
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        assert "unsafe" not in response.headers["Content-Security-Policy"]
        assert "server" not in response.headers


def test_pages_elsewhere_may_not_ask(served, http):
    refused(http.post(CHAT, json=GOOD, headers={"Origin": "http://evil.example"}), 403)
    refused(http.post(CHAT, json=GOOD, headers={"Origin": "null"}), 403)
    refused(http.post(CHAT, json=GOOD, headers={"Host": "evil.example"}), 403)
    assert http.post(CHAT, json=GOOD, headers={"Origin": served.url}).status_code == 200


def test_a_page_that_is_named_may():
    with serving({"tuned": generator("tiny_llama")}, origins=["https://good.example"]) as made:
        asks = {
            "Origin": "https://good.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type,authorization",
        }
        before = httpx.request("OPTIONS", f"{made.url}{CHAT}", headers=asks)
        assert (before.status_code, before.headers["Access-Control-Allow-Origin"]) == (200, "https://good.example")
        after = httpx.post(f"{made.url}{CHAT}", json=GOOD, headers={"Origin": "https://good.example"})
        assert (after.status_code, after.headers["Access-Control-Allow-Origin"]) == (200, "https://good.example")


def test_the_key(caplog):
    caplog.set_level(logging.INFO)
    with serving({"tuned": generator("tiny_llama")}, key=KEY) as made, httpx.Client(base_url=made.url) as http:
        for given in (b"", f"Bearer {KEY}x".encode(), f"Basic {KEY}".encode(), "Bearer ü".encode()):
            headers = {b"Authorization": given} if given else {}
            for path in ("/v1/models", "/metrics", "/settings", "/openapi.json"):
                refused(http.get(path, headers=headers), 401)
            refused(http.post(CHAT, json=GOOD, headers=headers), 401)
        right = {"Authorization": f"Bearer {KEY}"}
        assert http.get("/v1/models", headers=right).status_code == 200
        assert http.post(CHAT, json=GOOD, headers=right).status_code == 200
        assert http.get("/").status_code == http.get("/health").status_code == 200
    assert KEY not in caplog.text


@pytest.mark.parametrize("log_prompts", [False, True])
def test_the_log_holds_no_prompt_unless_asked(log_prompts, caplog):
    caplog.set_level(logging.INFO)
    body = {**GOOD, "messages": [{"role": "user", "content": "my secret \x1b[31m"}]}
    with serving({"tuned": generator("tiny_llama")}, log_prompts=log_prompts) as made:
        assert httpx.post(f"{made.url}{CHAT}", json=body).status_code == 200
        httpx.get(f"{made.url}/%1b[31m%0afake")
    assert ("my secret" in caplog.text) == log_prompts
    assert "POST /v1/chat/completions 200" in caplog.text
    assert "\x1b" not in caplog.text
    assert "\nfake" not in caplog.text
