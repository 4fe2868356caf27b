"""In the process that is to be killed: wait for a stage of the run, and a moment more, and send a signal."""

import functools
import importlib
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

# A stage, and the function that it is: where it is looked up, and under which name.
STAGES = {
    "start": ("llmft.__main__", "launch"),
    "reading": ("llmft.data.preparation", "write_examples"),
    "encoding": ("llmft.data.preprocessing.encode", "Preprocessor.write"),
    "cache": ("llmft.data.preprocessing.cache", "cached_folder"),
    "loading": ("llmft.models.backbone.load", "load_model"),
    "baseline": ("llmft.training.fit", "validate"),
    "training": ("llmft.models.module", "InstructionModule.training_step"),
    "checkpointing": ("llmft.runs.checkpoint_io", "AtomicCheckpointIO.save_checkpoint"),
    "best checkpoint": ("llmft.callbacks.checkpoints", "atomic_link"),
    "validation": ("llmft.models.module", "InstructionModule.validation_step"),
    "samples": ("llmft.callbacks.samples", "Samples.on_validation_epoch_end"),
    "metrics": ("llmft.callbacks.metrics_log", "MetricsLog._append"),
    "run.json": ("llmft.runs.directory", "RunDirectory.update"),
    "config.yaml": ("llmft.runs.directory", "RunDirectory.save_config"),
    "the best weights": ("llmft.training.fit", "load_best"),
    "model/": ("llmft.generation.save", "save_model"),
    "evaluation": ("llmft.evaluation.evaluator", "Evaluation.evaluate_tuned"),
    "evaluation's files": ("llmft.evaluation.evaluator", "Evaluation.save"),
    "report": ("llmft.report.html", "write_report"),
    "a loader worker's batch": ("llmft.data.datamodule", "training_batch"),
    "export": ("llmft.commands.export", "export"),
    "export's files": ("llmft.export.export", "atomic_folder"),
    "evaluate's files": ("llmft.commands.evaluate", "_write"),
    "answers": ("llmft.commands.answer", "_write_file"),
    "a sweep's job": ("llmft.sweep.job", "attempt"),
    "a job's record": ("llmft.sweep.job", "_record"),
    "a sweep's end": ("llmft.sweep.results", "end"),
}


class Strike(NamedTuple):
    """``number``: the signal; it is sent ``delay`` seconds after the ``call``-th call of the stage's function has begun.

    ``worker``: to the loader worker that the stage runs in, if it does, and not to the run.
    """

    stage: str
    call: int
    delay: float
    number: int
    worker: bool = False


def function_of(stage: str) -> tuple[Any, str]:
    """The module or class that holds a stage's function, and the function's name."""
    where, path = STAGES[stage]
    *outer, name = path.split(".")
    return functools.reduce(getattr, outer, importlib.import_module(where)), name


def wrap(stage: str, around: Callable[[Callable[[], Any]], Any]) -> None:
    """Let ``around`` make every call of a stage."""
    owner, name = function_of(stage)
    real = getattr(owner, name)
    setattr(owner, name, lambda *given, **named: around(lambda: real(*given, **named)))


def own_folder(folder: str) -> None:
    """Take another folder for temporary files."""
    import tempfile

    os.environ["TMPDIR"] = folder
    tempfile.tempdir = None


def clock(temporary: str, file: str) -> None:
    """Write how often and how long each stage runs."""
    own_folder(temporary)

    def timed(stage: str) -> None:
        def around(call: Callable[[], Any]) -> Any:
            started = time.perf_counter()
            try:
                return call()
            finally:
                with Path(file).open("a") as out:
                    out.write(f"{stage}\t{time.perf_counter() - started}\n")

        wrap(stage, around)

    for stage in STAGES:
        timed(stage)


def strike(temporary: str, file: str, planned: Strike) -> None:
    """Send the signal when its moment comes; ``file`` keeps where in the code that was."""
    own_folder(temporary)
    main, calls, run = threading.main_thread().ident, 0, os.getpid()

    def hit() -> None:
        time.sleep(planned.delay)
        struck = os.getpid() if planned.worker else run
        Path(file).write_text(_place(sys._current_frames().get(main or 0)))
        os.kill(struck, planned.number)

    def around(call: Callable[[], Any]) -> Any:
        nonlocal calls
        calls += 1
        if calls == planned.call:
            threading.Thread(target=hit, daemon=True).start()
        return call()

    wrap(planned.stage, around)


def _place(frame: Any) -> str:
    """The innermost function of llmft that was running."""
    while frame and not frame.f_globals.get("__name__", "").startswith("llmft"):
        frame = frame.f_back
    return f"{frame.f_globals['__name__']}.{frame.f_code.co_name}" if frame else "a library, before or after llmft"
