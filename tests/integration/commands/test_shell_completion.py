"""The completion scripts in real shells: what is run after Tab was pressed.

A stand-in for the program writes the arguments that it gets to a file, and passes completion on to llmft.
"""

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = """\
#!/bin/sh
case "$1" in
__complete|completion) exec {python} -m llmft "$@" ;;
*) printf '%s\\n' "$@" > arguments.tmp && mv arguments.tmp arguments ;;
esac
"""
TYPED = "llmft answ\tgeneration=be\tform\tjs\tinput=qu\t"
RUN = ["answer", "generation=beam", "format=json", "input=questions of today.csv"]
SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], 'eval "$(llmft completion bash)"'),
    "zsh": (["zsh", "-f", "-i"], 'eval "$(llmft completion zsh)"'),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the stand-in and a file, as working directory."""
    program = tmp_path / "bin" / "llmft"
    program.parent.mkdir()
    program.write_text(PROGRAM.format(python=sys.executable))
    program.chmod(0o755)
    (tmp_path / "questions of today.csv").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TERM", "xterm")
    return tmp_path


def needs(shell: str) -> None:
    """Skip a test whose shell is not there; bash has to be."""
    if shell != "bash" and shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")


def typed(command: list[str], lines: list[str], done: Path, seconds: float = 60) -> str:
    """Type lines into a shell's terminal until ``done`` exists; returns what it shows."""
    process, terminal = pty.fork()
    if process == 0:
        os.execvp(command[0], command)
    shown = b""
    os.write(terminal, "\n".join([*lines, ""]).encode())
    end = time.monotonic() + seconds
    while not done.exists() and time.monotonic() < end:
        if select.select([terminal], [], [], 0.05)[0]:
            shown += os.read(terminal, 10000)
    os.write(terminal, b"\x03\nexit\n")
    os.close(terminal)
    os.waitpid(process, 0)
    return shown.decode(errors="replace")


@pytest.mark.parametrize("shell", SHELLS)
def test_tab_completes_in_a_terminal(shell: str, folder: Path):
    needs(shell)
    command, setup = SHELLS[shell]
    shown = typed(command, [setup, TYPED], folder / "arguments")
    assert (folder / "arguments").is_file(), shown
    assert (folder / "arguments").read_text().splitlines() == RUN


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("llmft answ", "answer\tinference with a run or a model\n"),
        ("llmft -m generation=greedy,be", "generation=greedy,beam\tBeam search\n"),
        ("llmft answer input=qu", "input=questions of today.csv\n"),
        ("llmft nothing_like_it", ""),
    ],
)
def test_fish(line: str, expected: str):
    needs("fish")
    script = f"llmft completion fish | source; complete -C '{line}'"
    done = subprocess.run(["fish", "--no-config", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == expected


@pytest.mark.parametrize(
    ("breaks", "expected"),
    [
        ("$COMP_WORDBREAKS", ["<academic >", "<>", "<>", "<>", "<trim_prompt ><trim_answer >"]),
        # without =, as Hydra's completion script leaves it: the complete word is replaced, and readline lists no files
        (
            "${COMP_WORDBREAKS//=}",
            [
                "<data=academic >",
                "<input=questions of today.csv>",
                "<>",
                "<>",
                "<data.too_long=trim_prompt ><data.too_long=trim_answer >",
            ],
        ),
    ],
)
def test_bash_replaces_what_follows_a_word_break(breaks: str, expected: list[str]):
    needs("bash")
    lines = [
        "llmft data=ac",
        "llmft answer input=qu",
        "llmft answer question='what is tr",
        "llmft nothing=at",
        "llmft data.too_long=tr",
    ]
    script = f"""
        eval "$(llmft completion bash)"
        COMP_WORDBREAKS="{breaks}"
        while IFS= read -r COMP_LINE; do
            COMP_POINT=${{#COMP_LINE}}
            _llmft llmft
            printf '<%s>' "${{COMPREPLY[@]}}"
            echo
        done"""
    done = subprocess.run(
        ["bash", "-c", script], input="\n".join([*lines, ""]), capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == expected
