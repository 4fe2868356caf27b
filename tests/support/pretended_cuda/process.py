"""Runs of llmft on the pretended device in a process of their own; ``python -m tests.support.pretended_cuda.process`` is it."""

import gc
import importlib
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from tests.support.pretended_cuda import library


class Job(NamedTuple):
    """A command line to run.

    Attributes:
        arguments: Of llmft.
        faults: Names of ``faults.FAULTS``, which it runs under.
        gpus: Number of pretended devices.
    """

    arguments: Sequence[str]
    faults: Sequence[str] = ()
    gpus: int = 1


class Result(NamedTuple):
    """A finished job.

    Attributes:
        code: Exit code of the command; 1 with a traceback.
        folder: Its run directory.
        output: What it printed.
        counts: ``Counts.as_dict``.
    """

    code: int
    folder: str
    output: str
    counts: Mapping[str, Any]


def run(jobs: Mapping[str, Job], folder: Path) -> dict[str, Result]:
    """Run jobs one after the other in one new process.

    Args:
        jobs: By name; a job's output folder is ``folder/NAME``, so that another one can continue it.
        folder: Working directory.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "jobs.json").write_text(json.dumps(jobs), encoding="utf-8")
    root = Path(__file__).parents[3]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    }
    command = [sys.executable, "-m", __name__, "jobs.json"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return {name: Result(**result) for name, result in results.items()}


def main() -> None:
    """The process: jobs from a file, results into ``results.json`` beside it."""
    library.load()
    from tests.support import fast_compose
    from tests.support.pretended_cuda import cuda

    cuda.install()
    fast_compose.install()
    importlib.import_module("llmft.commands.train")
    os.fsync = lambda handle: None  # noqa: ARG005 (as in all tests: tests/conftest.py)
    gc.collect()
    gc.freeze()  # a collection would walk through all that was imported
    jobs = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    results = {name: _run(name, Job(*job))._asdict() for name, job in jobs.items()}
    Path("results.json").write_text(json.dumps(results), encoding="utf-8")


def _run(name: str, job: Job) -> Result:
    from hydra.core.global_hydra import GlobalHydra

    from llmft.__main__ import run as run_command
    from tests.support.pretended_cuda.counts import COUNTS
    from tests.support.pretended_cuda.faults import planted

    GlobalHydra.instance().clear()
    COUNTS.reset()
    sys.argv = ["llmft"]
    resumed = next((one.partition("=")[2] for one in job.arguments if one.startswith("resume=")), None)
    folder = [] if resumed else [f"output_dir={name}"]
    file = Path(f"{name}.txt")
    with patch.dict(os.environ, LLMFT_PRETENDED_GPUS=str(job.gpus)), _into(file), planted(list(job.faults)):
        code = run_command([*job.arguments, *folder])
    return Result(code, str(Path(resumed or name).resolve()), file.read_text(encoding="utf-8"), COUNTS.as_dict())


@contextmanager
def _into(file: Path) -> Iterator[None]:
    """What is printed, by whatever means, goes into a file."""
    before = os.dup(1), os.dup(2)
    with file.open("wb") as out:
        for stream in (1, 2):
            os.dup2(out.fileno(), stream)
        try:
            yield
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for stream, kept in zip((1, 2), before, strict=True):
                os.dup2(kept, stream)
                os.close(kept)


if __name__ == "__main__":
    main()
