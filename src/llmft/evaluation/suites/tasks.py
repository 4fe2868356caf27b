"""Tasks of lm-evaluation-harness by their names: its own, and those of local files."""

import importlib
import importlib.metadata
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from llmft.evaluation.suites.task_files import ALLOW, check_files, with_local_data
from llmft.utils.errors import UserError, chain
from llmft.utils.text import did_you_mean, one_line

MISSING_DATA = ("OfflineModeIsEnabled", "LocalEntryNotFoundError", "DatasetNotFoundError")


def version() -> str:
    """The installed version of lm-evaluation-harness.

    Raises:
        UserError: It is not installed.
    """
    try:
        importlib.import_module("lm_eval")
        return importlib.metadata.version("lm_eval")
    except ImportError:
        raise UserError('suite: needs lm-evaluation-harness; pip install "llmft[lm-eval]"') from None


def load_tasks(names: Sequence[str], folder: Path | None, *, code: bool) -> dict[str, Any]:
    """Load tasks with their data.

    Args:
        names: Names of tasks, groups or tags.
        folder: Task files of the user (``suite_path``), which come before the harness's own tasks of the same name.
        code: Whether code that they bring may be run: ``!function`` in task files, and metrics that are scripts of the Hub.

    Returns:
        What ``TaskManager.load`` returns: ``tasks``, ``groups`` and ``group_map`` by name.

    Raises:
        UserError: A task is unknown, its data is not there, or it needs code that is not allowed.
    """
    if folder is not None and not code:
        check_files(folder)
    with harness(code=code) as refused:
        manager = _manager(names, folder, code=code)
        loaded: dict[str, Any] = {}
        for name in names:
            for part, found in _load(manager, name, refused).items():
                loaded.setdefault(part, {}).update(found)
    for name, task in loaded["tasks"].items():
        if getattr(task, "UNSAFE_CODE", False):
            raise UserError(
                f"suite={name}: runs what the model writes as code, which llmft does not; use lm_eval with an export of the run"
            )
    return loaded


@contextmanager
def harness(*, code: bool) -> Iterator[list[str]]:
    """Inside the block the harness prints to stderr, renders templates in Jinja's sandbox, and downloads no metric scripts.

    Yields:
        The names of metric scripts that were refused.
    """
    from jinja2.sandbox import SandboxedEnvironment

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    utils: Any = importlib.import_module("lm_eval.utils")
    metrics: Any = importlib.import_module("evaluate")
    before, load, refused = utils.env, metrics.load, []
    sandbox: Any = SandboxedEnvironment(undefined=before.undefined, keep_trailing_newline=True)
    sandbox.filters.update(before.filters)

    def refuse(name: str, *_: Any, **__: Any) -> None:
        refused.append(name)
        raise UserError(f"metric {name}: is a script of the Hub; {ALLOW}")

    utils.env = sandbox
    if not code:
        metrics.load = refuse
    try:
        with redirect_stdout(sys.stderr):
            yield refused
    finally:
        utils.env, metrics.load = before, load


def _manager(names: Sequence[str], folder: Path | None, *, code: bool) -> Any:
    tasks = importlib.import_module("lm_eval.tasks")
    manager = None
    if folder is not None:
        manager = tasks.TaskManager(include_path=str(folder), include_defaults=False)
        plain = set(manager.all_subtasks)
        if not plain.issuperset(names):  # reading the 10,000 files of the harness takes seconds
            manager = tasks.TaskManager(include_path=str(folder))
        _with_local_files(manager.task_index, folder, code=code)
    manager = manager or tasks.TaskManager()
    if unknown := [name for name in names if name not in manager.task_index]:
        raise UserError(f"suite={unknown[0]}: no such task.{_known(unknown[0], manager.all_tasks, folder)}")
    return manager


def _with_local_files(index: Any, folder: Path, *, code: bool) -> None:
    """Replace the entries of local files by their content, with data files relative to them."""
    load_yaml = importlib.import_module("lm_eval.tasks._yaml_loader").load_yaml
    for entry in index.values():
        if entry.yaml_path is not None and Path(entry.yaml_path).is_relative_to(folder):
            task = load_yaml(entry.yaml_path, resolve_func=code)
            entry.cfg, entry.yaml_path = with_local_data(task, Path(entry.yaml_path).resolve().parent), None


def _known(name: str, known: Sequence[str], folder: Path | None) -> str:
    near = did_you_mean(name, known)
    if near or folder is None:
        return near or " `lm_eval ls tasks` lists those of lm-evaluation-harness; suite_path=DIR adds your own"
    return f" {folder} and lm-evaluation-harness have no name like it"


def _load(manager: Any, name: str, refused: Sequence[str]) -> dict[str, Any]:
    try:
        found = manager.load([name])
    except UserError as error:
        raise UserError(f"suite={name}: {error}") from None
    except Exception as error:  # code of the harness, of datasets and of tasks raises anything
        if refused:
            raise UserError(f"suite={name}: its metric {refused[0]} is a script of the Hub; {ALLOW}") from None
        raise UserError(f"suite={name}: {_reason(error)}") from None
    if refused:
        raise UserError(f"suite={name}: its metric {refused[0]} is a script of the Hub; {ALLOW}")
    return found


def _reason(error: Exception) -> str:
    causes = list(chain(error))
    if any(isinstance(cause, ConnectionError) or type(cause).__name__ in MISSING_DATA for cause in causes):
        return (
            f"its data is not on this machine and cannot be downloaded ({one_line(error, 200)}); load it once with a network, or "
            "pass task files with data of your own: suite_path=DIR"
        )
    return f"cannot be loaded ({type(error).__name__}: {one_line(error, 200)})"
