"""Nothing is sent anywhere: a whole training under a guard that would record any connection or look-up of a name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llmft.utils import telemetry

# Runs before anything else in the process and in those that it starts.
GUARD = """
import os, socket

def note(name, real):
    def called(*args, **options):
        first = args[0] if args else None
        if getattr(first, "family", None) == socket.AF_UNIX:
            return real(*args, **options)
        with open(os.environ["GUARD"], "a") as out:
            out.write(f"{name} {args[-1]!r}\\\\n")
        raise OSError(f"{name}: no network in this test")
    return called

for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex", "gethostbyaddr", "getnameinfo", "create_connection"):
    setattr(socket, name, note(name, getattr(socket, name)))
real = socket.socket

class Guarded(real):
    connect = note("connect", real.connect)
    connect_ex = note("connect_ex", real.connect_ex)
    sendto = note("sendto", real.sendto)
    sendmsg = note("sendmsg", real.sendmsg)

socket.socket = Guarded
""".replace("\\\\n", "\\n")
TRAINING = (
    *("model=tiny_t5", "data=alpaca", "data.path=sample", "data.limit=24", "peft=lora", "trainer.max_steps=2"),
    *("questions=1", "evaluate.rows=2", "evaluate.resamples=100", "generation.max_new_tokens=4", "output_dir=run"),
)


@pytest.fixture
def guarded(tmp_path):
    (tmp_path / "guard").mkdir()
    (tmp_path / "guard" / "sitecustomize.py").write_text(GUARD)
    (tmp_path / "connections").touch()
    hub = dict.fromkeys(("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", *telemetry.OFF), "")  # as a user has it
    path = os.pathsep.join([str(tmp_path / "guard"), *sys.path])
    return {
        **{k: v for k, v in os.environ.items() if k not in hub},
        "PYTHONPATH": path,
        "GUARD": str(tmp_path / "connections"),
    }


def test_the_guard_sees_what_it_guards_against(guarded, tmp_path):
    lines = "import socket, urllib.request\nfor f in (lambda: urllib.request.urlopen('http://127.0.0.1:9'), lambda: socket.gethostbyname('x'), lambda: socket.socket().connect(('127.0.0.1', 9)), lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))):\n    try: f()\n    except OSError: pass\n"
    subprocess.run([sys.executable, "-c", lines], env=guarded, check=True)
    found = (tmp_path / "connections").read_text().split()[::2]
    assert {"connect", "gethostbyname", "create_connection", "sendto"} & set(found) >= {"connect", "gethostbyname"}


@pytest.mark.slow
def test_a_whole_training_makes_no_connection(guarded, tmp_path):
    """With the measurement before, tensorboard, samples, scores, the report and the end table."""
    command = [sys.executable, "-m", "llmft", *TRAINING]
    done = subprocess.run(command, cwd=tmp_path, env=guarded, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "report.html").is_file()
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    assert (tmp_path / "connections").read_text() == ""


def test_telemetry_is_off_before_a_library_could_look():
    code = "import llmft, os, sys; print(*(os.environ[name] for name in llmft.utils.telemetry.OFF)); print('transformers' in sys.modules)"
    bare = {k: v for k, v in os.environ.items() if k not in telemetry.OFF}
    kept = {**bare, "WANDB_ERROR_REPORTING": "true"}
    for environment, wandb in ((bare, "false"), (kept, "true")):
        said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert said.stdout.split()[-1] == "False"
        assert said.stdout.split()[-2] == wandb  # what a user sets stays
    from huggingface_hub import constants

    assert constants.HF_HUB_DISABLE_TELEMETRY
    assert Path(telemetry.__file__).read_text().count('": "') == len(telemetry.OFF)
