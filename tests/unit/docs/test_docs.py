"""Every command in the README and docs/: composed and checked here; really run, with tiny models in place of large ones, when slow."""

import io
import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from omegaconf import OmegaConf

from llmft.__main__ import split_command
from llmft.config.help.catalog import HIDDEN
from llmft.config.hydra_precheck import swept_jobs
from llmft.config.override_text import quoted
from llmft.config.paths import conf_dir
from llmft.config.schema import COMMANDS
from llmft.config.validate import check
from tests.conftest import ROOT, write_rows
from tests.support.docs_scripts import docs_script

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`(python -m llmft [^`]+)`")
REFERENCE_ROW = re.compile(r"^\| `([\w.]+)` \|.*\| ([^|]*) \|$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[\w-]+)?\)")


# Placeholders of a syntax, not a command.
SYNTAX = ("key=value", "...]", "[COMMAND]", " ...", "=...")


class Shown(NamedTuple):
    """A command as a page shows it, and what is piped into it."""

    words: list[str]
    stdin: str | None = None


def shown(page: Path) -> list[Shown]:
    """The commands of a page, in its order: of its blocks, and those in the line that are complete."""
    text = page.read_text(encoding="utf-8")
    found = []
    blocks = [body for language, body in FENCE.findall(text) if language in ("", "bash", "sh", "console")]
    for line in "\n".join(blocks).replace("\\\n", " ").split("\n"):
        line = line.removeprefix("$ ").strip()
        piped = re.fullmatch(r"cat (\S+) \| (.*)", line)
        line = piped[2] if piped else line
        if line.startswith("python -m llmft"):
            found.append(Shown(shlex.split(line, comments=True)[3:], piped[1] if piped else None))
    for line in INLINE.findall(FENCE.sub("", text)):
        if not any(mark in line for mark in SYNTAX):
            found.append(Shown(shlex.split(line)[3:]))
    return found


def parts(words: list[str]) -> tuple[str, list[str], bool]:
    """Command, overrides, and whether it is a sweep."""
    command, rest = split_command(words)
    multirun = bool({"-m", "--multirun"} & set(rest))
    return command, [quoted(word, multirun=multirun) for word in rest if not word.startswith("-")], multirun


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_composes_and_passes_the_checks(page, load):
    faults = []
    for words, _ in shown(page):
        if any(word.startswith("--config-dir") for word in words):
            continue
        try:
            command, overrides, multirun = parts(words)
            for job in swept_jobs(overrides) if multirun else [overrides]:
                cfg = load(*job, command=command)
                if "fallback" in cfg.get("optim", {}):
                    cfg.optim.fallback = True  # paging needs a CUDA GPU
                check(cfg, COMMANDS[command])
        except Exception as error:
            faults.append(f"{' '.join(words)}: {error}")
    assert not faults, "\n".join(faults)


def test_the_pages_show_commands_of_every_kind():
    commands = [split_command(words)[0] for page in PAGES for words, _ in shown(page)]
    assert set(commands) >= set(COMMANDS)
    assert len(commands) > 40


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_hold_nothing_else_that_looks_like_a_command_and_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for name in LINK.findall(text):
        assert name.startswith(("http://", "https://")) or (page.parent / name).exists(), name
    for target in re.findall(r"^make (\w+)", "\n".join(body for _, body in FENCE.findall(text)), re.MULTILINE):
        assert f"\n{target}:" in (ROOT / "Makefile").read_text()


def test_the_reference_is_up_to_date():
    made = docs_script("make_reference")
    assert made.PAGE.read_text(encoding="utf-8") == made.page(ROOT / "conf"), "run: python docs/make_reference.py"


@pytest.mark.parametrize("group", sorted({file.parent.name for file in conf_dir().glob("*/*.yaml")}))
def test_the_reference_has_every_key_of_a_group(group: str):
    """The keys of its files, by a YAML parser, stand on the page with a sentence; loggers are other packages' own."""

    def leaves(node: Any, path: str) -> list[str]:
        return [
            key
            for name, child in node.items()
            for key in (leaves(child, f"{path}{name}.") if isinstance(child, dict) and child else [f"{path}{name}"])
        ]

    rows = {
        row[1]: row[2] for row in REFERENCE_ROW.finditer(docs_script("make_reference").PAGE.read_text(encoding="utf-8"))
    }
    for file in (conf_dir() / group).glob("*.yaml"):
        prefix = "" if "@package _global_" in file.read_text(encoding="utf-8") else f"{group}."
        parsed: Any = OmegaConf.to_container(OmegaConf.load(file))
        keys = [key for key in leaves(parsed, prefix) if not set(key.split(".")) & {*HIDDEN, "defaults", "hydra"}]
        assert [key for key in keys if key not in rows] == []
        assert [key for key in keys if group != "logger" and not rows[key].strip()] == []


# --- really run ---------------------------------------------------------------------------------------------------------

SEQ2SEQ = ("flan_t5_small", "flan_t5_base", "flan_t5_large", "flan_t5_xl", "tiny_t5")
CAPS = {"trainer.max_steps": "2", "data.limit": "16", "questions": "0", "evaluate.rows": "2", "generation.max_new_tokens": "4", "callbacks.samples.number": "0",
        "callbacks.progress.refresh_rate": "0", "evaluate.resamples": "100"}  # fmt: skip
# Why some are not run here; each has a test of its own.
ELSEWHERE = {
    "hub=": "the Hub's API",
    "judge=": "needs a judge",
    "trainer=": "needs more devices",
    "peft.distill_from=": "needs a teacher",
    "--config-dir": "needs a package of the reader's",
    "logger=": "an extra",
    "model.source_language=": "needs a model that translates",
    "model=marian": "needs a model that translates",
    "serve": "answers until it is stopped",
}


def tiny(word: str) -> str:
    """A tiny model in place of a large one."""
    key, _, value = word.partition("=")
    if key != "model":
        return word
    names = ["tiny_t5" if name in SEQ2SEQ else "tiny_gpt2" for name in value.split(",")]
    return f"model={','.join(dict.fromkeys(names))}"


def made_runnable(words: list[str]) -> list[str]:
    """The same command, small and without a network."""
    command, _ = split_command(words)
    words = [tiny(word) for word in words if not word.startswith(("model.path=", "model.gguf_file="))]
    given = {word.partition("=")[0] for word in words}
    if command == "train" and "resume" not in given:
        words += [f"{key}={value}" for key, value in CAPS.items() if key not in given]
    if command in ("train", "preview") and "model" not in given and not given & {"resume"}:
        words.append("model=tiny_gpt2")
    if command == "train" and any(word.startswith("resume=") for word in words):
        words += [f"{key}={CAPS[key]}" for key in ("questions",)]
    sets = {"data=alpaca", "data=openorca", "data=psychology"} & set(words)
    return [*words, "data.path=sample"] if sets and "data.path" not in given else words


@pytest.fixture
def desk(tmp_path, llmft):
    """A folder with the files and runs that the pages speak of."""
    rows = [{"q": f"What is {n}?", "a": f"It is {n}."} for n in range(20)]
    (tmp_path / "qa.csv").write_text("q,a\n" + "".join(f"{row['q']},{row['a']}\n" for row in rows))
    shutil.copy(tmp_path / "qa.csv", tmp_path / "b.csv")
    write_rows(tmp_path / "qa.jsonl", *({"question": row["q"], "answer": row["a"]} for row in rows))
    chats = [[{"role": "user", "content": row["q"]}, {"role": "assistant", "content": row["a"]}] for row in rows]
    write_rows(tmp_path / "chats.jsonl", *({"conversations": chat} for chat in chats))
    for name in ("a.jsonl", "my.jsonl", "other.jsonl", "train.jsonl", "val.jsonl", "med.jsonl", "law.jsonl"):
        write_rows(tmp_path / name, *({"messages": chat} for chat in chats))
    for name in ("train.csv", "eval.csv"):
        (tmp_path / name).write_text("source_text,target_text\n" + "".join(f"{row['q']},{row['a']}\n" for row in rows))
    alpaca = [{"instruction": row["q"], "input": "", "output": row["a"]} for row in rows]
    (tmp_path / "my.json").write_text(json.dumps(alpaca))
    write_rows(tmp_path / "questions.jsonl", *({"question": row["q"]} for row in rows[:3]))
    (tmp_path / "questions.csv").write_text("question\nWhat?\n")
    (tmp_path / "questions.txt").write_text("What?\nWhy?\n")
    small = [f"{key}={value}" for key, value in CAPS.items()]
    assert llmft("model=tiny_gpt2", "peft=lora", *small, "output_dir=made/0")[0] == 0
    shutil.copy(tmp_path / "made" / "0" / "predictions.jsonl", tmp_path)
    return tmp_path


def at_hand(desk: Path, words: list[str], llmft: Any) -> None:
    """Put a run, a folder of runs or a halted run where a command expects one."""
    command, rest = split_command(words)
    for word in rest:
        key, _, value = word.partition("=")
        place = desk / value
        if key in ("run", "resume", "peft.adapter") and not (place / "model").is_dir() and command != "replay":
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(desk / "made" / "0", place)
            config = (place / "config.yaml").read_text().replace(str(desk / "made" / "0"), str(place))
            (place / "config.yaml").write_text(config)
        if key == "runs" and not place.exists():
            shutil.copytree(desk / "made", place)
        if command == "replay" and key == "run" and not (place / "halt").is_dir():
            shutil.rmtree(place, ignore_errors=True)
            small = [f"{name}={text}" for name, text in CAPS.items() if name != "trainer.max_steps"]
            assert (
                llmft(
                    "model=tiny_gpt2",
                    "peft=none",
                    "optim.lr=1e30",
                    "scheduler=constant",
                    "trainer.max_steps=9",
                    "data.batch_size=2",
                    *small,
                    f"output_dir={place}",
                )[0]
                == 3
            )


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_runs(page, desk, llmft, monkeypatch):
    faults = []
    for words, stdin in shown(page):
        if any(word.startswith(tuple(ELSEWHERE)) for word in words):
            continue
        if any(word.startswith("--") for word in words):
            continue
        wanted = 3 if "optim.lr=1e30" in words else 0
        at_hand(desk, words, llmft)
        piped = (desk / stdin).read_bytes() if stdin else b"Hi\n"  # chat reads it to its end
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(piped)))
        code, _, err = llmft(*made_runnable(words))
        if code != wanted:
            faults.append(f"{' '.join(words)}: exit code {code}: {err[-600:]}")
    assert not faults, "\n\n".join(faults)


@pytest.mark.slow
def test_the_python_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = [
        body for language, body in FENCE.findall((ROOT / "docs" / "python.md").read_text()) if language == "python"
    ]
    assert blocks
    for block in blocks:
        exec(block, {})
    assert (tmp_path / "my-model" / "model.safetensors").is_file()


@pytest.mark.slow
def test_the_lightning_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for language, body in FENCE.findall((ROOT / "docs" / "lightning.md").read_text()):
        assert language == "python"
        exec(body, {})
    assert "Trainer argument" in capsys.readouterr().out
