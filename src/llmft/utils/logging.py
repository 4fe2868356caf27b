"""The log of llmft, and silence from the libraries."""

import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from llmft.utils.console import Console, Formatter, say
from llmft.utils.rank import is_first

# Warnings that need no action of the user, each with the reason.
EXPLAINED = {
    "does not have many workers": "batches are slices of examples that are already encoded",
    "is smaller than the logging interval": "MetricsLog writes the first and the last step in any case",
    "Found .* module\\(s\\) in eval mode": "the module turns train mode on in on_fit_start",
    "GPU available but not used": "trainer.accelerator is the user's choice",
    "fan_in_fan_out": "models/peft/lora.py sets it by the type of the layer",
    "`isinstance\\(treespec, LeafSpec\\)` is deprecated": "Lightning 2.6 with torch 2.13; harmless",
    "is_gradient_checkpointing": "peft 0.21 uses an old name of transformers 5.23; harmless",
    "You're resuming from a checkpoint that ended before the epoch ended": "TrainingRun sets the sampler to the next batch",
    "It is recommended to use `self.log\\(.*sync_dist=True": "logged values are already summed over all ranks",
    "have no `val_dataloader`. Skipping val loop": "data.split.val=0 is the user's choice",
    "`max_epochs` was not set": "trainer.max_epochs=-1 is the user's choice",
}


def quiet() -> None:
    """Silence progress bars, advice and known warnings of the libraries."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # else a warning at every fork of a loader worker
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # it gives advice on its kernels at import and at each layer
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    for message in EXPLAINED:
        warnings.filterwarnings("ignore", message=f".*{message}.*")
    threading.excepthook = _thread_excepthook


@contextmanager
def quietly() -> Iterator[None]:
    """``quiet`` for the length of the block: a notebook or script goes on with its own logging and warnings."""
    with restored_logging():
        quiet()
        yield


def without_widgets() -> None:
    """In a notebook without ipywidgets: import tqdm before a library does, without its advice to install them."""
    if "ipykernel" in sys.modules:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import_module("tqdm.auto")


def _thread_excepthook(failure: Any) -> None:
    """Print no traceback of TensorBoard's writer on a full disk: the training stops at its next write, with one message."""
    if not (isinstance(failure.exc_value, OSError) and type(failure.thread).__module__.startswith("tensorboard.")):
        threading.__excepthook__(failure)


SHOWN: set[str] = set()  # the lines of a sweep's jobs
FILE_ONLY = {"file_only": True}  # as ``extra`` of a log record: it goes into log.txt, and not to the terminal


class Terminal(logging.StreamHandler):
    """Writes to the current ``sys.stderr``, which tests replace; in a notebook to ``sys.stdout``, which is not shown in red."""

    def __init__(self, *, once: bool = False) -> None:
        logging.Handler.__init__(self)
        self.in_notebook = Console().is_jupyter
        self.addFilter(lambda record: not getattr(record, "file_only", False))
        if once:
            self.addFilter(_is_new)

    @property
    def stream(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Where it writes."""
        return sys.stdout if self.in_notebook else sys.stderr


def _is_new(record: logging.LogRecord) -> bool:
    """Whether no earlier job of this process has logged the same line."""
    text = record.getMessage()
    is_new = record.levelno > logging.INFO or text not in SHOWN
    SHOWN.add(text)
    return is_new


def log_to(file: Path | None, *, once: bool = False) -> None:
    """Send llmft's log to the terminal, and all warnings and the log to ``file``.

    Args:
        file: ``log.txt``.
        once: In a job of a sweep: the terminal does not repeat the lines of earlier jobs.
    """
    logging.captureWarnings(True)
    root, ours = logging.getLogger(), logging.getLogger("llmft")
    for logger in (root, ours):
        for handler in list(logger.handlers):
            if getattr(handler, "of_llmft", False):
                logger.removeHandler(handler)
                handler.close()
    terminal = Terminal(once=once)
    terminal.setFormatter(Formatter("%(message)s"))
    _attach(terminal, root)
    if not is_first():
        root.setLevel(logging.ERROR)
        ours.setLevel(logging.ERROR)
        return
    if file:
        kept = KeptLog(file, encoding="utf-8")
        kept.setFormatter(Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        _attach(kept, root)
    root.setLevel(logging.WARNING)
    ours.setLevel(logging.INFO)


@contextmanager
def restored_logging() -> Iterator[None]:
    """Put everything that ``quiet`` and ``log_to`` change in Python's logging and warnings back at the end of the block."""
    names = ("", "llmft", "lightning.pytorch", "lightning.fabric", "bitsandbytes")
    loggers = [logging.getLogger(name) for name in names]
    before = [(logger.level, list(logger.handlers)) for logger in loggers]
    hook, captured = threading.excepthook, logging._warnings_showwarning is not None  # pyright: ignore[reportAttributeAccessIssue]
    try:
        with warnings.catch_warnings():
            yield
    finally:
        for logger, (level, handlers) in zip(loggers, before, strict=True):
            for handler in set(logger.handlers) - set(handlers):
                logger.removeHandler(handler)
                if getattr(handler, "of_llmft", False):
                    handler.close()
            logger.setLevel(level)
        threading.excepthook = hook
        logging.captureWarnings(captured)


class KeptLog(logging.FileHandler):
    """``log.txt``; on a full disk it stops with one message instead of a traceback per line."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Report an OSError once and stop writing."""
        error = sys.exception()
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        logging.getLogger().removeHandler(self)
        say(f"{self.baseFilename}: nothing more is written to it ({error.strerror})")


def _attach(handler: logging.Handler, logger: logging.Logger) -> None:
    handler.of_llmft = True  # pyright: ignore[reportAttributeAccessIssue]
    logger.addHandler(handler)
