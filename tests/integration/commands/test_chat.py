"""The conversation in the terminal."""

import io
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from llmft.chat import input, session
from llmft.chat.history import Conversation
from llmft.chat.slash_commands import changes
from llmft.commands import chat
from llmft.config.groups import prompt_config
from llmft.data.records import Turn
from llmft.data.tokenization.build import codec_for
from llmft.generation.generator import Generator
from llmft.generation.load import load_streaming
from llmft.generation.prefix_cache import PrefixCache
from llmft.utils.errors import UserError
from tests.support.server import generator

TINY = "generation.max_new_tokens=12"


@pytest.fixture
def talk(llmft, monkeypatch):
    """Type lines to a chat: ``code, out, err = talk(["Hi", "/quit"], "model=tiny_t5")``."""

    def run(lines, *overrides):
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        before = signal.getsignal(signal.SIGTERM)
        try:
            return llmft("chat", *overrides)
        finally:
            signal.signal(signal.SIGTERM, before)

    return run


@pytest.fixture
def sharp(monkeypatch):
    """A model with distinct logits in place of the loaded one; returns a function that answers with it."""
    made = {}

    def load(cfg):
        loaded, system = load_streaming(cfg)
        if cfg.model.name not in made:
            made[cfg.model.name] = generator(cfg.model.name)
        return Generator(made[cfg.model.name].model, loaded.codec, loaded.given), system

    monkeypatch.setattr(chat, "load_streaming", load)
    return lambda name, contexts: [a.text for a in made[name].with_settings(max_new_tokens=12).answers(contexts)]


def test_it_answers_with_the_conversation_so_far(talk, sharp):
    code, out, err = talk(["Hi", "", "Why?"], "model=tiny_llama", TINY)
    assert code == 0, err
    first = sharp("tiny_llama", [(Turn("user", "Hi"),)])[0]
    second = sharp("tiny_llama", [(Turn("user", "Hi"), Turn("assistant", first), Turn("user", "Why?"))])[0]
    assert shown(first) in out
    assert shown(second) in out
    assert "each is answered without the earlier turns" not in out


def test_earlier_turns_are_not_computed_again(talk, monkeypatch):
    made = []
    monkeypatch.setattr(session, "PrefixCache", lambda *given: made.append(PrefixCache(*given)) or made[-1])
    assert (
        talk(["What is it?", "Why?", "/reset", "And now?"], "model=tiny_llama", "generation.max_new_tokens=3")[0] == 0
    )
    (cache,) = made
    assert cache.hits == 1
    assert 0 < cache.tokens * 2 * 2 * 4 < cache.bytes
    assert talk(["Hi", "Why?"], "model=tiny_llama", "generation.max_new_tokens=3", "chat.prefix_cache_mib=0")[0] == 0
    assert (made[1].hits, made[1].bytes) == (0, 0)


def shown(text):
    from llmft.training.summary import printable

    return printable(text)


def test_a_single_turn_model_gets_only_the_question_and_a_note_says_so(talk, sharp):
    code, out, err = talk(["Hi", "Why?"], "model=tiny_t5", TINY)
    assert code == 0, err
    assert "each is answered without the earlier turns" in out
    for question in ("Hi", "Why?"):
        assert shown(sharp("tiny_t5", [(Turn("user", question),)])[0]) in out


def test_the_commands(talk, sharp, tmp_path):
    lines = [
        "/help", "/system Be brief.", "Hi", "/save rows.jsonl", "/params max_new_tokens=3 temperature=0.5", "More", "/save rows.jsonl",
        "/reset", "/save rows.jsonl", "/system -", "/params top_p=3", "/params batch_size=3", "/params nope=1", "/params temperature=0", "/compare",
        "/sav x", "/save no/such/folder", "/save", "/quit", "never typed",
    ]  # fmt: skip
    code, out, err = talk(lines, "model=tiny_llama", TINY)
    assert code == 0, err
    answer = sharp("tiny_llama", [(Turn("system", "Be brief."), Turn("user", "Hi"))])[0]
    one, two = (json.loads(line)["messages"] for line in (tmp_path / "rows.jsonl").read_text().splitlines())
    assert one == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": answer},
    ]
    assert two[:3] == one
    assert len(two) == 5
    for text in (
        "/params [KEY=VALUE]", "system: Be brief.", "saved 1 question:", "saved 2 questions:", 'do_sample: true', "temperature: 0.5", "[cut at 3 tokens]",
        "conversation cleared", "/save: the conversation is empty", "system: none", "/params top_p=3: must be a number above 0, up to 1", "/params batch_size=3: must be KEY=VALUE",
        "generation.nope: transformers' GenerationConfig has no such setting", "do_sample: false", "pass run=RUN", "/sav: no such command. Did you mean save?",
        "/save: pass a file",
    ):  # fmt: skip
        assert text in out, text
    assert "never typed" not in out
    assert code == 0


def test_the_seed_repeats_a_sampled_conversation(talk):
    def sampled(seed):
        return talk(["Hi", "Hi"], "model=tiny_llama", TINY, "generation=sample", f"seed={seed}")[1]

    assert sampled(1) == sampled(1) != sampled(2)


def test_control_characters_do_not_reach_the_terminal(talk):
    _, out, _ = talk(
        ["Hi\x1b[31m", "/system \x1b]0;x\x07", "/sa\x1bv"], "model=tiny_gpt2", "generation.max_new_tokens=60"
    )
    assert not [char for char in out if ord(char) < 32 and char != "\n"]


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        (["a", "", " b "], ["a", "b"]),
        (["a\\", "b\\", "c", "d"], ["a\nb\nc", "d"]),
        (["a\\"], ["a"]),
        (['"""', "a", "", "/b\\", '"""', "c"], ["a\n\n/b\\", "c"]),
        (['"""', "a"], ["a"]),
        (["\ud83d"], ["?"]),
    ],
)
def test_messages(lines, wanted, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
    assert list(input.messages("> ", lambda _: None)) == wanted


def test_ctrl_c_at_the_prompt_does_not_leave(monkeypatch):
    written, typed_lines = [], iter([KeyboardInterrupt, "Hi", EOFError])

    def answer(_):
        line = next(typed_lines)
        if isinstance(line, str):
            return line
        raise line

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", answer)
    assert list(input.messages("> ", written.append)) == ["Hi"]
    assert "Ctrl-D leaves" in written[0]


def test_the_oldest_turns_are_dropped(llama_tokenizer):
    codec, _ = codec_for("causal", llama_tokenizer, prompt_config("auto"), None, "answer")
    talked = Conversation(codec, 200, single_turn=False, system="S")
    for number in range(6):
        talked.exchanges.append((f"question {number}", {"tuned": f"answer {number}"}))
    prompt = talked.prompt("last", "tuned")
    text = llama_tokenizer.decode(prompt.ids)
    assert len(prompt.ids) <= 200
    assert prompt.dropped > 0
    assert f"question {prompt.dropped - 1}" not in text
    assert f"question {prompt.dropped}" in text
    assert "S" in text
    assert "last" in text
    talked.max_prompt_tokens = len(talked.prompt("last", "tuned").ids) + 60
    assert talked.prompt("last", "tuned").dropped == prompt.dropped - 1  # no more than has to be
    with pytest.raises(UserError, match="the limit is"):
        talked.prompt("x" * 500, "tuned")


def test_a_note_says_how_many_turns_were_dropped(talk):
    _, out, _ = talk(["x" * 40, "y" * 40, "z" * 40, "w" * 300], "model=tiny_llama", TINY, "chat.max_prompt_tokens=150")
    assert "oldest turn dropped: the prompt is limited to 150 tokens]" in out
    assert "no answer: the question has" in out


def test_a_compared_model_continues_its_own_answers(llama_tokenizer):
    codec, _ = codec_for("causal", llama_tokenizer, prompt_config("auto"), None, "answer")
    talked = Conversation(codec, 900, single_turn=False)
    talked.exchanges = [("one", {"tuned": "T1"}), ("two", {"tuned": "T2", "base": "B2"})]
    assert [message["content"] for message in talked.messages("base")] == ["one", "T1", "two", "B2"]
    assert "T2" not in llama_tokenizer.decode(talked.prompt("three", "base").ids)


def test_a_temperature_turns_sampling_on_and_off():
    assert changes("temperature=0.5") == {"temperature": 0.5, "do_sample": True, "num_beams": 1}
    assert changes("temperature=0")["do_sample"] is False
    assert changes("generation.max_new_tokens=5 top_p=0.9") == {
        "max_new_tokens": 5,
        "top_p": 0.9,
        "do_sample": True,
        "num_beams": 1,
    }


def test_ctrl_c_stops_the_answer_and_not_the_program(talk, monkeypatch):
    written = []
    real = session.ChatSession.write

    def write(self, text):
        written.append(text)
        real(self, text)
        if len(written) == 4:  # the header, and three pieces of the answer
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(session.ChatSession, "write", write)
    before = signal.getsignal(signal.SIGINT)  # a process in the background ignores it
    code, out, _ = talk(
        ["Hi", "/save rows.jsonl", "/params max_new_tokens=2", "Hi"],
        "model=tiny_llama",
        "generation.max_new_tokens=400",
    )
    assert code == 0
    assert out.count("[stopped]") == out.count("[cut at 2 tokens]") == 1
    assert len(written) < 20
    assert "saved 1 question:" in out  # the text up to there stays in the conversation
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.slow
def test_ctrl_c_stops_the_answer_and_sigterm_the_program(tmp_path):
    """In a process of its own, as a user has it."""
    command = [sys.executable, "-m", "llmft", "chat", "model=tiny_llama", "generation.max_new_tokens=3900"]
    started = subprocess.Popen(
        command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )  # fmt: skip
    assert started.stdin
    assert started.stdout
    try:
        started.stdin.write(b"Hi\n")
        started.stdin.flush()
        read = b""
        while b"leaves\n" not in read or len(read.split(b"leaves\n")[1]) < 5:  # the answer has begun
            read += os.read(started.stdout.fileno(), 100)
        started.send_signal(signal.SIGINT)
        while b"[stopped]" not in read:
            read += os.read(started.stdout.fileno(), 100)
        started.stdin.write(b"/params max_new_tokens=2\nHi\n")
        started.stdin.flush()
        while b"[cut at 2 tokens]" not in read:
            read += os.read(started.stdout.fileno(), 1000)
        time.sleep(0.2)
        started.send_signal(signal.SIGTERM)
        assert started.wait(20) == 130
        assert b"Traceback" not in started.stderr.read()  # pyright: ignore[reportOptionalMemberAccess]
    finally:
        started.kill()
        started.wait()
