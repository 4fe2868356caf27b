"""``serve`` as a user starts it: over a run, found faulty before a model is loaded, stopped by a signal."""

import atexit
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx2 as httpx
import pytest

from llmft.commands import serve
from llmft.models.backbone import load
from tests.conftest import cli

QUESTION = "What is a llama?"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    done = cli(
        "model=tiny_llama", "data=psychology", "data.path=sample", "peft=lora", "data.limit=24", "trainer.max_steps=6", "optim.lr=1e-2", "questions=0",
        "generation.max_new_tokens=8", "callbacks.samples.number=0", "evaluate.rows=0", "report.write=false", "output_dir=made",
        cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "made"


class Started:
    """The command in a process of its own, and what it has said so far."""

    def __init__(self, *arguments, folder, **environment):
        command = [sys.executable, "-m", "llmft", "serve", "serve.port=0", *arguments]
        self.process = subprocess.Popen(
            command, cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
        )  # fmt: skip
        atexit.register(self.process.kill)  # a test that fails leaves no server behind
        self.said = ""
        self.reading = threading.Thread(target=self._read, daemon=True)
        self.reading.start()
        end = time.monotonic() + 60
        while "stops the server" not in self.said:
            assert time.monotonic() < end, self.said
            assert self.process.poll() is None, self.said
            time.sleep(0.05)
        found = re.search(r"http://127\.0\.0\.1:\d+", self.said)
        assert found
        self.url = found.group()

    def _read(self):
        assert self.process.stderr
        for line in self.process.stderr:
            self.said += line

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        code = self.process.wait(30)
        self.reading.join(5)
        return code


def ask(url, **more):
    key = {"Authorization": "Bearer sk-test"}
    body = {"messages": [{"role": "user", "content": QUESTION}], **more}
    return httpx.post(f"{url}/v1/chat/completions", json=body, headers=key, timeout=30)


def busy(url, asking):
    """Wait until an answer is being made."""
    end = time.monotonic() + 30
    while httpx.get(f"{url}/health").json()["running"] == 0:
        assert asking.is_alive()
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.slow
def test_a_run_and_its_base(run, llmft):
    started = Started(f"run={run}", folder=run.parent, LLMFT_API_KEY="sk-test")
    try:
        assert "(with an API key)" in started.said
        assert "safety=simple" in started.said  # it was trained on counselling rows
        assert httpx.get(f"{started.url}/v1/models").status_code == 401
        tuned, base = (ask(started.url, model=name) for name in ("psychology-tiny_llama-lora", "tiny_llama"))
        found = tuned.json()["choices"][0]["message"]["content"]
        code, out, err = llmft("answer", f"run={run}", f"question={QUESTION}", "format=json")
        assert code == 0, err
        assert found == json.loads(out)["answer"]
        # the untrained model under the run's system line
        system = "system=You are a compassionate mental health assistant."
        code, out, err = llmft(
            "answer", "model=tiny_llama", f"question={QUESTION}", "format=json", "generation.max_new_tokens=8", system
        )
        assert base.json()["choices"][0]["message"]["content"] == json.loads(out)["answer"] != found
    finally:
        code = started.stop()
    assert code == 0
    assert started.said.endswith("stopped\n")
    assert "sk-test" not in started.said
    assert QUESTION not in started.said
    assert "Traceback" not in started.said


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_answer_that_is_being_made_ends_before_the_server_does(number, tmp_path):
    started = Started("model=tiny_llama", "generation.max_new_tokens=300", folder=tmp_path)
    found = {}
    asking = threading.Thread(target=lambda: found.update(ask(started.url, model="tiny_llama").json()))
    asking.start()
    busy(started.url, asking)
    assert started.stop(number) == 0
    asking.join(10)
    assert found["usage"]["completion_tokens"] == 300
    assert started.said.endswith("stopped\n")


@pytest.mark.slow
def test_an_answer_that_takes_longer_is_cut_off(tmp_path):
    started = Started(
        "model=tiny_llama",
        "generation.max_new_tokens=4000",
        "serve.max_answer_tokens=4000",
        "serve.shutdown_seconds=1",
        folder=tmp_path,
    )
    failed = []

    def hang():
        try:
            failed.append(ask(started.url, model="tiny_llama").status_code)
        except httpx.HTTPError as error:
            failed.append(error)

    asking = threading.Thread(target=hang)
    asking.start()
    busy(started.url, asking)
    assert started.stop() == 0
    asking.join(10)
    assert failed
    assert failed[0] != 200


@pytest.fixture
def no_model(monkeypatch):
    monkeypatch.setattr(load, "load_model", None)


FAULTS = {
    "serve.port=70000": "serve.port=70000: must be a whole number from 0 to 65535",
    "serve.max_batch=0": "serve.max_batch=0: must be a whole number of at least 1",
    "serve.host=0.0.0.0": "other machines could connect without a key; set LLMFT_API_KEY in the environment",
    "serve.host=256.1.1.1 serve.allow_no_key=true": "serve.host=256.1.1.1 serve.port=8000: cannot listen there",
    "serve.key_env=a-b": "serve.key_env=a-b: must be the name of an environment variable",
    "serve.prot=1": "serve.prot: no such key. Did you mean serve.port=1?",
    "safety=simple safety.blocked=[1]": "safety.blocked=[1]: must be a list of strings",
    "safety._target_=os.system": "safety._target_=os.system: not allowed",
    "run=nowhere": "run=nowhere: no run directory",
}


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize("overrides", FAULTS)
def test_faults_are_named_before_a_model_is_loaded(overrides, llmft, monkeypatch):
    monkeypatch.delenv("LLMFT_API_KEY", raising=False)
    code, _, err = llmft("serve", *([] if "run=" in overrides else ["model=tiny_gpt2"]), *overrides.split())
    assert code == 2
    assert FAULTS[overrides] in err
    assert "Traceback" not in err


@pytest.mark.usefixtures("no_model")
def test_a_port_that_is_taken(llmft):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, _, err = llmft("serve", "model=tiny_gpt2", f"serve.port={port}")
    assert code == 2
    assert f"serve.port={port}: cannot listen there (Address already in use)" in err


@pytest.mark.usefixtures("no_model")
def test_a_blank_key_is_no_key(llmft, monkeypatch):
    monkeypatch.setenv("LLMFT_API_KEY", " ")
    code, _, err = llmft("serve", "model=tiny_gpt2")
    assert code == 2
    assert "LLMFT_API_KEY: is set, but blank" in err


@pytest.mark.usefixtures("no_model")
def test_a_missing_extra_is_one_line(llmft, monkeypatch):
    monkeypatch.setattr(serve, "find_spec", lambda module: None if module == "uvicorn" else object())
    code, _, err = llmft("serve", "model=tiny_gpt2")
    assert code == 2
    assert err.strip() == "llmft: serve: needs uvicorn; pip install 'llmft[serve]'"


def test_settings_that_cannot_be_served(llmft):
    code, _, err = llmft("serve", "model=tiny_gpt2", "generation=sample", "generation.samples=3", "serve.port=0")
    assert code == 2
    assert "generation.samples=3: chat and serve sample one answer; pass generation.samples=1" in err


@pytest.mark.slow
def test_ctranslate2_serves_the_answers_of_torch_from_the_cache(run):
    answers = []
    for engine in ("torch", "ctranslate2", "ctranslate2"):
        server = Started("run=made", f"serve.engine={engine}", folder=run.parent)
        answers.append(ask(server.url, model="psychology-tiny_llama-lora").json()["choices"][0]["message"]["content"])
        said = server.said
        assert server.stop() == 0
        assert ("converting the model" in said) == (len(answers) == 2)
    assert answers[1:] == answers[:1] * 2
