"""Run the sides of a case as processes that take turns, so that load on the machine affects all of them."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from training.cases import Case, Side
from training.material import BATCH, RATES, Material, common
from training.turns import READ, WRITE

HERE = Path(__file__).resolve().parents[1]
# environments of their own; on a machine that has one only, `PEERS_PYTHON`
PEERS = Path(os.environ.get("PEERS_PYTHON", HERE.parent / ".venv-peers" / "bin" / "python"))
UNSLOTH = Path(os.environ.get("UNSLOTH_PYTHON", HERE.parent / ".venv-unsloth" / "bin" / "python"))


class Ended(SystemExit):
    """A side ended before its time; says how."""


class Runner:
    """The process of a side, which waits between its turns.

    Attributes:
        name: Label in the table.
        facts: Its report when it was ready.
        turns: Its reports, without the warm-up.
    """

    def __init__(self, name: str, command: Sequence[str], folder: Path, threads: int | None, packages: str) -> None:
        self.name, self.log = name, folder / f"{name.replace(' ', '_')}.log"
        to_child, self.orders = os.pipe()
        self.reports, from_child = os.pipe()
        environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"} | {
            "PYTHONPATH": os.pathsep.join([str(HERE), packages]),
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            READ: str(to_child),
            WRITE: str(from_child),
        }
        if threads:
            environment["OMP_NUM_THREADS"] = str(threads)
        with self.log.open("w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, env=environment, pass_fds=(to_child, from_child), stdout=log, stderr=log
            )
        os.close(to_child)
        os.close(from_child)
        self.lines = os.fdopen(self.reports, encoding="utf-8")
        self.turns: list[dict[str, Any]] = []
        self.done = 0

    def wait(self) -> None:
        """Wait until it is ready for its first turn."""
        self.facts = self._receive()

    def take(self, steps: int, *, counts: bool = True) -> None:
        """Take a turn; with ``counts=False`` it is a warm-up, and the next turn resets the peak memory."""
        if steps <= 0:
            return
        order = {"steps": steps, "forget_peak": counts and not self.turns}
        os.write(self.orders, (json.dumps(order) + "\n").encode())
        report = self._receive()
        self.done += len(report["steps"])
        if counts:
            self.turns.append(report)

    def _receive(self) -> dict[str, Any]:
        line = self.lines.readline()
        if not line:
            tail = self.log.read_text(encoding="utf-8", errors="replace")[-3000:]
            raise Ended(f"{self.name}: ended with {self.process.wait()}\n{tail}")
        return json.loads(line)

    def end(self) -> None:
        """End the process; saving and evaluation are not measured."""
        os.close(self.orders)
        self.lines.close()
        self.process.kill()
        self.process.wait()


@contextmanager
def started(case: Case, material: Material, folder: Path, device: str, threads: int | None) -> Iterator[list[Runner]]:
    """The sides, ready for their first turn; the ceiling comes last.

    Raises:
        Ended: One of them does not start.
    """
    commands = {side.name: command(side, case, material, folder, device) for side in case.sides}
    commands["ceiling"] = [sys.executable, "-m", "training.ceiling", device]
    of = {side.name: side.of for side in case.sides}
    with ExitStack() as stack:
        runners = []
        for name, line in commands.items():
            # Unsloth's packages are other versions of the same: on a machine with one Python they lie in a folder, UNSLOTH_SITE
            packages = os.environ.get("UNSLOTH_SITE" if of.get(name) == "unsloth" else "PYTHONPATH", "")
            runners.append(Runner(name, line, folder, threads, packages))
            stack.callback(runners[-1].end)
        for runner in runners[::-1]:  # a peer that cannot start says so soonest
            runner.wait()
        yield runners


def measure(runners: Sequence[Runner], warm_up: int, rounds: int) -> None:
    """Take the warm-up of each side, then the rest of its epoch in ``rounds`` turns."""
    *sides, ceiling = runners
    for side in sides:
        if side.facts["steps"] <= warm_up:
            raise SystemExit(f"{side.name}: {side.facts['steps']} steps, all of them the warm-up: raise --steps")
    for runner in runners:
        runner.take(warm_up, counts=False)
    for number in range(rounds):
        for runner in sides if number % 2 == 0 else sides[::-1]:
            due = warm_up + round((runner.facts["steps"] - warm_up) * (number + 1) / rounds)
            runner.take(due - runner.done)
        ceiling.take(2)


def command(side: Side, case: Case, material: Material, folder: Path, device: str) -> list[str]:
    """The command line of a side."""
    if side.of == "llmft":
        return [sys.executable, "-m", "llmft", *overrides(side, case, material, folder, device)]
    python = peer_python(side)
    given = {
        "trainer": side.of,
        "model": material.model,
        "rows": str(material.rows),
        "rows_in_all": material.rows_in_all,
        "adapter": material.adapter and str(material.adapter),
        "device": device,
        "batch_size": BATCH,
        "lr": RATES[case.peft],
        "max_length": sum(material.tokens),
        "dtype": side.dtype,
        "attention": side.attention if device == "cpu" else "sdpa",
        "best_on_gpu": side.best and device == "cuda",
        "arguments": side.arguments,
    }
    module = "training.unsloth_peer" if side.of == "unsloth" else "training.peers"
    return [str(python), "-m", module, json.dumps(given)]


def peer_python(side: Side) -> Path:
    """The Python of a peer.

    Raises:
        Ended: It is not there.
    """
    python, target = (UNSLOTH, "unsloth") if side.of == "unsloth" else (PEERS, "bench")
    if not python.exists():
        raise Ended(f"{side.name}: it is not installed; `make {target}` does that")
    return python


def overrides(side: Side, case: Case, material: Material, folder: Path, device: str) -> list[str]:
    """llmft's command line: a training as a user would start it, without baseline, evaluation and report."""
    return [
        *material.given,
        f"data={case.data}",
        f"data.path={material.data}",
        f"output_dir={folder / side.name.replace(' ', '_').replace(',', '')}",
        *common(case),
        *([f"peft.adapter={material.adapter}"] if material.adapter else []),
        f"trainer.accelerator={'gpu' if device == 'cuda' else device}",
        "baseline=false",
        "questions=0",
        "evaluate.rows=0",
        "report.write=false",
        "allow_targets=[training]",
        "+callbacks.turns._target_=training.ours.InTurns",
        *precision(side, device),
        *side.overrides,
    ]


def precision(side: Side, device: str) -> list[str]:
    """On a GPU the precision that the peer has too; llmft's own choice there would be bf16-mixed."""
    if device == "cpu":
        return []
    return [f"trainer.precision={'bf16-mixed' if side.ceiling == 'bfloat16' else '32-true'}"]
