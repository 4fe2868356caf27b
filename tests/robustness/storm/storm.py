"""Command lines x broken inputs x environments: whatever is wrong, an exit code that means something, one message, and nothing left behind."""

import functools
import multiprocessing
import os
import random
import re
import shutil
import tempfile
from dataclasses import dataclass
from functools import partial
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

from tests.conftest import _command
from tests.robustness.faults.full_disk import NOT_ALLOWED
from tests.robustness.storm.damage import STATES, damage, files_of, override
from tests.robustness.storm.environments import ENVIRONMENTS, HARMLESS, ODD, SILENT
from tests.robustness.storm.world import LINES, place

PRELOADED = ["llmft.commands.train", "llmft.__main__", "tests.support.preloaded_process"]
SECONDS_TO_HANG = 240
CODES = {0, 2, 3, 130}
NOTICE = re.compile(
    "of the stored config is not used|\\(the (newest|only) run in |nothing more is written to it"
)  # not an error


@dataclass(frozen=True)
class Case:
    """A command line, what is wrong with its inputs, and where it runs.

    Attributes:
        line: A name in ``LINES``.
        environment: A name in ``ENVIRONMENTS``.
        file: Of ``in/``, that is damaged; empty for none.
        state: The damage, a name in ``STATES``.
        more: Further overrides.
    """

    line: str
    environment: str = "plain"
    file: str = ""
    state: str = ""
    more: tuple[str, ...] = ()

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong with the inputs."""
        return not self.file and not self.more

    @property
    def expected(self) -> set[int]:
        """The exit codes that are right."""
        if self.line == "replay" and self.is_sound and self.environment in HARMLESS:
            return {0}
        return {0} if self.is_sound and self.environment in HARMLESS else CODES - {130}


@dataclass(frozen=True)
class Outcome:
    """How a command ended: its exit code, what it printed, and the files that are there afterwards and were not before."""

    code: int
    out: str
    err: str
    new: tuple[str, ...]


def set_up(environment: str, folder: str) -> None:
    """In the process that becomes the command: its folders, and what is unusual about it."""
    for variable, name in (("HOME", "home"), ("LLMFT_CACHE", "cache"), ("TMPDIR", "tmp")):
        os.environ[variable] = str(Path(folder, name))
    os.environ |= {"PWD": folder, "XDG_CACHE_HOME": str(Path(folder, "home", ".cache"))}
    tempfile.tempdir = None
    ENVIRONMENTS[environment]()


def start(case: Case, folder: Path) -> Outcome | None:
    """Run a case in ``folder``, which has the inputs; None where the system does not let us mount.

    Raises:
        TimeoutError: It hangs.
    """
    if case.file:
        damage(folder / "in" / case.file, case.state)
    before = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    context: Any = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        arguments = (*LINES[case.line], *case.more)
        ready = partial(set_up, case.environment, str(folder))
        files: Any = (DupFd(out.fileno()), DupFd(err.fileno()))
        process = context.Process(target=_command, args=(arguments, str(folder), dict(os.environ), ready, *files))
        process.start()
        process.join(SECONDS_TO_HANG)
        if process.is_alive():
            process.kill()
            raise TimeoutError(f"{case}: hung for {SECONDS_TO_HANG} s")
        texts = [os.pread(file.fileno(), 2**24, 0).decode(errors="replace") for file in (out, err)]
    if process.exitcode == NOT_ALLOWED:
        return None
    after = {str(path.relative_to(folder)).removeprefix(f"{ODD}/") for path in folder.rglob("*")}
    return Outcome(process.exitcode, texts[0], texts[1], tuple(sorted(after - before)))


def faults(case: Case, outcome: Outcome) -> list[str]:
    """What is wrong with how a case ended."""
    found = []
    told = [line for line in outcome.err.splitlines() if line.startswith("llmft: ") and not NOTICE.search(line)]
    both = outcome.out + outcome.err
    if outcome.code not in case.expected:
        found.append(f"exit code {outcome.code}, and not {sorted(case.expected)}")
    for words in ("Traceback", "Exception ignored", "HYDRA_FULL_ERROR", "Logging error"):
        if words in both:
            found.append(words)
    if outcome.code == 2 and case.environment not in SILENT and case.line != "sweep" and len(told) != 1:
        found.append(f"{len(told)} messages")
    if any(not line.removeprefix("llmft: ").strip() or line.endswith((": ", ": None")) for line in told):
        found.append("a message that says nothing")
    found += [f"left behind: {path}" for path in outcome.new if _is_left_over(path, outcome)]
    return found


def _is_left_over(path: str, outcome: Outcome) -> bool:
    name = Path(path).name
    if path.startswith("tmp/torchinductor_"):  # torch's cache, which is empty
        return False
    if name.endswith(".tmp") or name == "in_use" or path.startswith("tmp/"):
        return True
    if name == "config.yaml" and path.startswith("out/"):
        return str(Path(path).with_name("run.json")) not in outcome.new
    return outcome.code == 2 and path.startswith("out/") and name in ("exported", "restored", "schemas", "model")


def cases(inputs: Path, number: int, seed: int) -> list[Case]:
    """Generated cases: each environment with each line, then damaged files and odd overrides, in a random order."""
    chance = random.Random(seed)
    calm = [Case(line, environment) for line in LINES for environment in ENVIRONMENTS]
    broken = [
        Case(line, "plain", str(file), state) for line in LINES for file in files_of(inputs, line) for state in STATES
    ]
    odd = [
        Case(line, "plain", more=(override(_keys(line), chance),))
        for line in LINES
        if line not in ("help", "cfg")
        for _ in range(40)
    ]
    mixed = [
        Case(case.line, chance.choice(list(ENVIRONMENTS)), case.file, case.state)
        for case in chance.sample(broken, min(200, len(broken)))
    ]
    every = [*calm, *broken, *odd, *mixed]
    chance.shuffle(every)
    return every[:number]


@functools.cache
def _keys(line: str) -> list[str]:
    from llmft.config.compose import config_keys
    from tests.conftest import composed

    command = LINES[line][0]
    return config_keys(composed(command=command if command.isalpha() else "train"))


def storm(chosen: list[Case], inputs: Path, folder: Path, say: Any = print) -> list[str]:
    """Run cases; returns the faults, and leaves their folders."""
    found = []
    for number, case in enumerate(chosen):
        own = place(inputs, folder / f"case-{number}")
        try:
            outcome = start(case, own)
        except TimeoutError as error:
            found.append(str(error))
            say(found[-1])
            continue
        if outcome and (wrong := faults(case, outcome)):
            found.append(f"{own.name} {case}: {'; '.join(wrong)}\n{outcome.out[-300:]}\n{outcome.err[-1500:]}")
            say(found[-1])
        else:
            shutil.rmtree(own, ignore_errors=True)
        if number % 50 == 49:
            say(f"{number + 1} of {len(chosen)} cases, {len(found)} faults")
    return found
