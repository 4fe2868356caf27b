"""The Optuna study of a search: one file beside the run directories of its jobs."""

from pathlib import Path
from typing import Any

NAME = "sweep"


def storage_of(file: Path) -> Any:
    """Optuna storage in one file, which processes on several machines may write to at the same time."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(str(file)))
