"""Run one test per source mutation: each mutated copy of ``src`` is tested in a fork that has the libraries imported already."""

import contextlib
import gc
import importlib
import importlib.metadata
import os
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

ROOT = Path(__file__).parents[2]
LIMIT = 120.0  # seconds for one mutation; a test that takes longer has not seen it
LIBRARIES = (  # imported by the tests; not llmft, of which every fork has its own copy
    "bitsandbytes", "datasets", "hydra.core.override_parser.overrides_parser", "hypothesis", "hypothesis.strategies", "lightning.pytorch",
    "matplotlib.backends.backend_agg", "matplotlib.figure", "pandas", "peft", "rouge_score.rouge_scorer", "sacrebleu.metrics.bleu",
    "sacrebleu.metrics.chrf", "torch.utils.tensorboard", "transformers.generation.utils", "transformers.models.gpt2.modeling_gpt2",
    "transformers.models.llama.modeling_llama", "transformers.models.t5.modeling_t5", "transformers.optimization",
)  # fmt: skip
BROKEN_EDITS = (ImportError, NameError, SyntaxError)  # the edited code does not run at all


class Fault(NamedTuple):
    """An edit of one source file (below src/llmft), and the test that must see it."""

    name: str
    file: str
    old: str
    new: str
    test: str
    seconds: float = 3.0  # about what its test takes; the longest are started first


class Outcome(NamedTuple):
    """Whether the test of a fault failed, the reason for that, and how long it took."""

    fault: Fault
    seen: bool
    reason: str
    seconds: float
    cpu_seconds: float  # of its processes, independent of the load of the machine


def misfit(fault: Fault) -> str | None:
    """Why a fault no longer fits the source; None if it does."""
    file = ROOT / "src" / "llmft" / fault.file
    test, _, name = fault.test.split()[0].partition("::")
    if not file.is_file():
        return f"no file src/llmft/{fault.file}"
    source = file.read_text(encoding="utf-8")
    if fault.old not in source:
        return f"{fault.file} no longer holds {fault.old!r}"
    if not (ROOT / test).is_file() or f"def {name.partition('[')[0]}" not in (ROOT / test).read_text(encoding="utf-8"):
        return f"no test {fault.test}"
    try:
        compile(source.replace(fault.old, fault.new), fault.file, "exec")
    except SyntaxError as error:
        return f"the edit of {fault.file} is no Python: {error}"
    return None


def preload() -> None:
    """Import the libraries once, without starting threads: a process with threads must not be forked."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    os.environ.pop("CI", None)  # pytest would print every difference in full
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in LIBRARIES:
            importlib.import_module(name)
        for plugin in importlib.metadata.entry_points(group="pytest11"):
            plugin.load()
    gc.collect()
    gc.freeze()  # otherwise a garbage collection of a fork would copy all of it


def run_all(faults: Sequence[Fault], workers: int = 2, limit: float = LIMIT) -> Iterator[Outcome]:
    """The outcome of each fault, as its test finishes."""
    waiting = sorted(faults, key=lambda fault: fault.seconds)
    running: list[_Mutation] = []
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                running.append(_Mutation(waiting.pop(), limit))
            time.sleep(0.02)
            for mutation in running[:]:
                if outcome := mutation.finished():
                    running.remove(mutation)
                    yield outcome
    finally:  # of an interrupted runner
        for mutation in running:
            mutation.kill()


class _Mutation:
    """A fork that tests one mutated copy."""

    def __init__(self, fault: Fault, limit: float) -> None:
        self.fault, self.limit, self.started = fault, limit, time.monotonic()
        self.folder = Path(tempfile.mkdtemp(prefix="mutation-"))
        _copy(fault, self.folder)
        sys.stdout.flush()
        self.pid = os.fork()
        if not self.pid:
            _test(fault.test, self.folder)

    def finished(self) -> Outcome | None:
        """The outcome, once the test has ended or run out of time."""
        pid, status, used = os.wait4(self.pid, os.WNOHANG)
        seconds = time.monotonic() - self.started
        late = not pid and seconds > self.limit
        if not pid and not late:
            return None
        self.kill()
        if late:
            _, status, used = os.wait4(self.pid, 0)
        file = self.folder / "reason.txt"
        why = file.read_text(encoding="utf-8") if file.exists() else ""
        seen, reason = _judge(os.waitstatus_to_exitcode(status), why, late)
        if not seen and not late:
            reason = f"{reason}\n{(self.folder / 'output.txt').read_text(encoding='utf-8', errors='replace')[-1500:]}"
        shutil.rmtree(self.folder, ignore_errors=True)
        return Outcome(self.fault, seen, reason, seconds, used.ru_utime + used.ru_stime)

    def kill(self) -> None:
        """End the fork, and the processes it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


def _judge(code: int, why: str, late: bool) -> tuple[bool, str]:
    if late:
        return False, "its test timed out"
    if any(why.startswith(f"{kind.__name__}: ") for kind in (*BROKEN_EDITS, ModuleNotFoundError, IndentationError)):
        return False, f"the edit does not run: {why}"
    if code == 1:  # a test failed; other codes are errors of pytest itself
        return True, why
    return (True, f"killed by signal {-code}") if code < 0 else (False, f"pytest ended with {code}")


def _copy(fault: Fault, folder: Path) -> None:
    """``src``, ``conf`` and ``tests`` as hard links, bytecode too; only the edited file is copied."""
    for part in ("src", "conf", "tests"):
        shutil.copytree(ROOT / part, folder / part, copy_function=_link)
    shutil.copy(ROOT / "pyproject.toml", folder)
    file = folder / "src" / "llmft" / fault.file
    source = file.read_text(encoding="utf-8")
    file.unlink()
    for bytecode in (file.parent / "__pycache__").glob(f"{file.stem}.*"):
        bytecode.unlink()
    file.write_text(source.replace(fault.old, fault.new), encoding="utf-8")


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def _test(test: str, folder: Path) -> NoReturn:
    """In the fork: run the test against the copy, write the reason of its failure, and exit with pytest's code."""
    code = 70
    try:
        os.setsid()
        for number in (1, 2):
            os.dup2(os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
        os.chdir(folder)
        os.environ |= {"PYTHONPATH": f"{folder / 'src'}", "LLMFT_TEST_FORKS": "1", "LLMFT_TEST_PATIENCE": "10"}
        for name in [name for name in sys.modules if name.partition(".")[0] in ("tests", "llmft", "hydra_plugins")]:
            del sys.modules[name]
        ours = {str(ROOT), str(ROOT / "src"), str(Path(__file__).parent), str(ROOT / "tests" / "guarantees")}
        sys.path[:] = [str(folder / "src"), *(place for place in sys.path if place not in ours)]
        importlib.invalidate_caches()
        import pytest

        options = ["-x", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
        plugin = _Reason(folder / "reason.txt")
        code = int(pytest.main([*options, f"--basetemp={folder / 'tmp'}", *test.split()], plugins=[plugin]))
        sys.stdout.flush()
    finally:
        os._exit(code)


class _Reason:
    """Writes the exception of the first test that fails."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def pytest_exception_interact(self, node: Any, call: Any) -> None:
        """A hook of pytest."""
        text = str(call.excinfo.value).strip() or "(no message)"
        if not self.file.exists():
            text = text if len(text) <= 400 else f"{text[:150]} [...] {text[-250:]}"
            self.file.write_text(f"{call.excinfo.type.__name__}: {text} [{node.name}]", encoding="utf-8")
