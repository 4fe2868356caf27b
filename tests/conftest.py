"""Shared by all tests: no network, a separate cache folder, fixtures and helpers."""

import gc
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterator
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any, NamedTuple

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"  # tiny models on one core each; two test processes share two cores

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hypothesis import Phase, settings

from llmft.config.paths import conf_dir
from llmft.config.schema import COMMANDS
from llmft.config.typed import typed
from llmft.models.backbone.tiny import LLAMA_TEMPLATE, byte_tokenizer
from tests.support import accelerators, fast_compose

# A slow machine is no fault; and what a change is judged by must not depend on luck: LLMFT_FUZZ=N looks further.
# A mutation of the source needs any example that fails, and not the smallest one.
PHASES = [phase for phase in Phase if phase != Phase.shrink or "LLMFT_TEST_FORKS" not in os.environ]
settings.register_profile(
    "llmft", deadline=None, derandomize="LLMFT_FUZZ" not in os.environ, print_blob=True, phases=PHASES
)
settings.load_profile("llmft")
USERS_CACHE = os.environ.get("LLMFT_CACHE")
ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"
DATA = {
    "academic": "academic.jsonl",
    "alpaca": "alpaca.json",
    "openorca": "openorca.jsonl",
    "psychology": "psychology.json",
    "keyword_qa": "keyword_qa.json",
}
FOLDERS = ("unit", "integration", "guarantees", "robustness", "real", "gpu")
TINY = ("tiny_t5", "tiny_gpt2", "tiny_llama")


def pytest_configure(config: pytest.Config) -> None:
    """Hide GPUs, also in each process of pytest-xdist; torch has been imported, but CUDA looks when it is first used."""
    accelerators.hide_gpus(config.option.markexpr)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by their folder; keep those that share a module's fixture, or the fork server, in one process.

    ``--dist loadgroup`` does so. The fork server of ``forked`` takes 8 seconds to start, in each process that needs one; its
    tests are two groups, as one would take longer than all others.
    """
    forking: dict[Path, int] = {}
    for item in items:
        folder = item.path.relative_to(ROOT / "tests").parts[0]
        if folder in FOLDERS:
            item.add_marker(folder)
        made = getattr(item, "_fixtureinfo").name2fixturedefs  # noqa: B009 (pytest has no public name for it)
        names = vars(getattr(item, "module", None) or object)
        if names.get("forked") is forked or {"two_ranks", "storm"} & names.keys():
            item.add_marker(pytest.mark.xdist_group(f"forks{forking.setdefault(item.path, len(forking)) % 2}"))
        elif any(fixture.scope == "module" for fixtures in made.values() for fixture in fixtures):
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))


_imported = 0


@pytest.hookimpl(trylast=True)
def pytest_runtest_setup() -> None:
    """Imported libraries stay: freeze them, or every garbage collection of a training walks through them again."""
    global _imported
    if len(sys.modules) > _imported + 300:
        _imported = len(sys.modules)
        gc.collect()
        gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Build tiny models once per test process; a user's cache is neither needed nor touched."""
    os.environ["LLMFT_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    os.environ.pop("LLMFT_CACHE")
    if USERS_CACHE:
        os.environ["LLMFT_CACHE"] = USERS_CACHE


@pytest.fixture(scope="session", autouse=True)
def _no_flush() -> Iterator[None]:
    """Flushing to the disk (milliseconds each) protects against power cuts, which these tests have none of."""
    real, os.fsync = os.fsync, lambda handle: None  # noqa: ARG005
    yield
    os.fsync = real


@pytest.fixture(scope="session", autouse=True)
def _compose_once() -> Iterator[None]:
    """Hydra composes a choice of files in ``conf/`` once."""
    undo = fast_compose.install()
    yield
    undo()


def composed(*overrides: str, command: str = "train") -> Any:
    """A command's config, composed by Hydra."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose(command, overrides=list(overrides))


@pytest.fixture
def load() -> Iterator[Callable[..., Any]]:
    """A command's config: ``load("data=alpaca", "data.path=sample", command="preview")``."""
    yield composed
    GlobalHydra.instance().clear()


@pytest.fixture
def load_config(load: Callable[..., Any]) -> Callable[..., Any]:
    """The typed config of a command: ``load_config("data=alpaca", command="preview")``."""
    return lambda *overrides, command="train": typed_config(load(*overrides, command=command), command)


def typed_config(cfg: Any, command: str = "train") -> Any:
    """The typed form of a composed config, whose values are valid."""
    found = typed(cfg, COMMANDS[command])
    assert not found.messages
    return found.config


@pytest.fixture
def llmft(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Run a command line in this process, inside ``tmp_path``: ``code, out, err = llmft("preview", "data=alpaca")``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("sys.argv", ["llmft"])

    def run(*arguments: str) -> tuple[int, str, str]:
        from llmft.__main__ import run as run_command

        GlobalHydra.instance().clear()
        capfd.readouterr()
        try:
            code = run_command(arguments)
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        out, err = capfd.readouterr()
        return code, out, err

    return run


def _encoded(cfg: Any) -> tuple[Any, Any]:
    """The encoded data of a config, and its backbone (no weights are loaded)."""
    from llmft.data.datamodule import open_data
    from llmft.models.backbone.open import Backbone

    backbone = Backbone.open(cfg)
    data = open_data(cfg.data)
    data.read()
    data.encode(backbone.codec)
    return data, backbone


@pytest.fixture
def built(load_config: Callable[..., Any]) -> Callable[..., Any]:
    """Encoded data and module of a config, as in training: ``data, module = built("model=tiny_t5", "peft=lora")``."""

    def build(*overrides: str) -> tuple[Any, Any]:
        from hydra.utils import instantiate

        from llmft.config import auto_values
        from llmft.models.attention.kernels import Kernels
        from llmft.models.module import InstructionModule
        from llmft.models.peft import trainable

        cfg, _ = auto_values.resolve_auto(load_config(*overrides))
        data, backbone = _encoded(cfg)
        model = backbone.load()
        torch.manual_seed(cfg.seed)
        model = trainable.adapt(model, cfg.peft, cfg.model.lora_targets)
        forward = backbone.family(model, Kernels.from_config(cfg))
        return data, InstructionModule(forward, instantiate(cfg.optim.node()), instantiate(cfg.scheduler.node()))

    return build


@pytest.fixture
def encoded(load_config: Callable[..., Any]) -> Callable[..., Any]:
    """The data of ``built`` without a model: ``data = encoded("model=tiny_t5", "data=alpaca", "data.path=sample")``."""

    def encode(*overrides: str) -> Any:
        from llmft.config import auto_values

        cfg, _ = auto_values.resolve_auto(load_config(*overrides))
        return _encoded(cfg)[0]

    return encode


@pytest.fixture
def module(load_config: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Encoded data of a config, of ``rows.jsonl`` in ``tmp_path``: ``data = module("model=tiny_t5")``."""
    monkeypatch.chdir(tmp_path)
    return lambda *overrides: _encoded(load_config("data.path=rows.jsonl", "prompt=plain", *overrides))[0]


@pytest.fixture(scope="session")
def gpt2_tokenizer() -> Any:
    """Byte-level; ``<|endoftext|>`` (id 0) is BOS, EOS and pad."""
    tokenizer = byte_tokenizer({"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"})
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


@pytest.fixture(scope="session")
def t5_tokenizer() -> Any:
    """Byte-level; ``<pad>`` (id 0), and ``</s>`` (id 1), which is appended to raw text."""
    return byte_tokenizer({"pad_token": "<pad>", "eos_token": "</s>"}, ends_with_eos=True)


@pytest.fixture(scope="session")
def llama_tokenizer() -> Any:
    """Byte-level; ``<unk>``, ``<s>``, ``</s>`` (ids 0 to 2), and Zephyr's chat template."""
    tokenizer = byte_tokenizer({"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"})
    tokenizer.chat_template = LLAMA_TEMPLATE
    return tokenizer


def read_json_lines(file: Path) -> list[Any]:
    """The rows of a JSONL file, split at newlines only."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]


def cli(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command line as a user does, in a process of its own."""
    command = [sys.executable, "-m", "llmft", *arguments]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"}, check=False
    )


def forked(
    *arguments: str, cwd: Path, before: Callable[[], None] | None = None, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """As ``cli``, in a fork of a process that has imported the libraries already: importing takes longer than a tiny run.

    Args:
        arguments: The command line; a run of several processes needs ``cli``.
        cwd: Its working directory.
        before: Called in that process before the command; must be importable.
        environment: Variables that it gets in addition.
    """
    direct = "LLMFT_TEST_FORKS" in os.environ  # this process is new: it has trained nothing, and runs no threads
    context: Any = multiprocessing.get_context("fork" if direct else "forkserver")
    if not direct:
        context.set_forkserver_preload(["llmft.commands.train", "llmft.__main__", "tests.support.preloaded_process"])
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        files = [_Inherited(file.fileno()) if direct else DupFd(file.fileno()) for file in (out, err)]
        process = context.Process(
            target=_command, args=(arguments, str(cwd), os.environ | (environment or {}), before, *files)
        )
        process.start()
        process.join()
        texts = [os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode() for file in (out, err)]
    assert process.exitcode is not None
    return subprocess.CompletedProcess(arguments, process.exitcode, *texts)


class _Inherited(NamedTuple):
    """A file descriptor that a fork has anyway."""

    number: int

    def detach(self) -> int:
        sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115 (not pytest's)
        return self.number


def _command(arguments: Any, cwd: str, environment: dict[str, str], before: Any, out: Any, err: Any) -> None:
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment | {"COLUMNS": "200"})
    for file, number in ((out, 1), (err, 2)):
        os.dup2(file.detach(), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = ["llmft", *arguments]
    multiprocessing.set_start_method(None, force=True)  # a user's loader workers are forks of the run, not of a server
    fast_compose.install()
    if before:
        before()
    from llmft.__main__ import main

    try:
        main()  # an interrupted run ends without waiting for its workers, and so must this
    finally:
        getattr(weakref.finalize, "_exitfunc")()  # noqa: B009 (a child of multiprocessing skips it, a process of a user's does not)


def write_rows(file: Path, *rows: Any) -> Path:
    """A JSONL file of these rows."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def chat_row(question: str, answer: str) -> dict[str, Any]:
    """A row of the academic set."""
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
