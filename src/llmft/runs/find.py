"""Find a run by ``latest`` or by a folder that holds it, such as ``outputs/academic-smollm2_135m-lora``."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from llmft.runs.record import has_record, read_record
from llmft.utils.errors import UserError
from llmft.utils.paths import user_path
from llmft.utils.shell import argument

LATEST = "latest"
OUTPUTS = "outputs"  # the folder of conf/train.yaml's output_dir
DEPTH = 4  # outputs/multirun/TIME/JOB
SHOWN = 8
PASSPORT = "passport.json"  # of an exported folder, which some commands take in place of a run
HOLDS = "it would hold config.yaml, run.json and model/"
# The folder in a run that a command needs, if it is not model/.
PARTS = {"train": None, "report": None, "replay": "halt"}


class FoundRun(NamedTuple):
    """A run directory, and why it was chosen; ``why`` is empty if it was named itself."""

    path: str
    why: str = ""


def find_run(given: str, key: str = "run", part: str | None = None) -> FoundRun:
    """The run directory that a user's ``run=`` or ``resume=`` names.

    Args:
        given: A run directory, a folder with one run below it, or ``latest``: the newest run below ``outputs/``.
        key: Of the command line, for messages.
        part: The folder that a run needs to be taken by ``latest``, such as ``model``.

    Raises:
        UserError: There is no run at all, or there are several.
    """
    folder = user_path(given)
    if (folder / "config.yaml").is_file() or has_record(folder) or (folder / PASSPORT).is_file():
        return FoundRun(given)
    if given == LATEST and not folder.is_dir():
        return _latest(key, part)
    if folder.name in ("model", "checkpoints", "halt") and (folder.parent / "config.yaml").is_file():
        return FoundRun(str(folder.parent), f"the run of {given}")
    found = _newest_first(folder)
    found = [run for run in found if part is None or (run / part).is_dir()] or found
    if not found and (folder / "config.json").is_file():
        of_model = argument("model.path", given)
        raise UserError(
            f"{key}={given}: holds a model (config.json) and no run; answer, chat and serve take it without {key}=: "
            f"model=auto {of_model}"
        )
    if not found:
        raise UserError(f"{key}={given}: no run directory ({HOLDS}; {key}=latest takes the newest in {OUTPUTS}/)")
    if len(found) == 1:
        return FoundRun(str(found[0]), f"the only run in {given}{f' with {part}/' if part else ''}")
    lines = [_line(key, run) for run in found[:SHOWN]]
    more = f"\n  ... and {len(found) - SHOWN} older ones" if len(found) > SHOWN else ""
    listed = "\n".join(lines)
    raise UserError(f"{key}={given}: holds {len(found)} runs; pass one of them, the newest first:\n{listed}{more}")


def run_started(started: str) -> Path | None:
    """The run below ``outputs/`` that was started at this time; None if there is none."""
    return next((run for run in _runs(Path(OUTPUTS), DEPTH) if _record(run).get("started") == started), None)


def with_run(argument: str, command: str) -> tuple[str, str]:
    """A command-line argument with the run that ``run=latest`` or ``resume=FOLDER`` means, and a line that says which.

    Raises:
        UserError: As ``find_run``.
    """
    key, _, value = argument.partition("=")
    if key not in ("run", "resume") or value in ("", "null") or value[0] in "'\"$":
        return argument, ""
    found = find_run(value, key, PARTS.get(command, "model"))
    return (f"{key}={found.path}", f"{key}={found.path} ({found.why})") if found.why else (argument, "")


def _latest(key: str, part: str | None) -> FoundRun:
    found = _newest_first(Path(OUTPUTS))
    usable = [run for run in found if part is None or (run / part).is_dir()]
    if not usable:
        what = f"none of the {len(found)} runs in {OUTPUTS}/ has {part}/" if found else f"there is no run in {OUTPUTS}/"
        raise UserError(f"{key}=latest: {what} (looked in {Path.cwd()}); train one, or pass {key}=DIR")
    skipped = found.index(usable[0])
    newer = f"; {skipped} newer without {part}/, the newest {found[0]} ({_status(found[0])})" if skipped else ""
    return FoundRun(str(usable[0]), f"the newest run in {OUTPUTS}/{newer}")


def _newest_first(folder: Path) -> list[Path]:
    return sorted(_runs(folder, DEPTH), key=_started, reverse=True)


def _runs(folder: Path, depth: int) -> Iterator[Path]:
    try:
        inside = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except (OSError, ValueError):  # ValueError: a path with a null byte
        return
    for entry in inside:
        if has_record(entry):
            yield entry
        elif depth > 1:
            yield from _runs(entry, depth - 1)


def _started(run: Path) -> tuple[str, float]:
    """When a run was started or last resumed, as ISO 8601 in UTC; then the time of its record, within one second."""
    record = _record(run)
    resumed = record.get("resumed")
    times = [record.get("started"), *(resumed if isinstance(resumed, list) else ())]
    return max((time for time in times if isinstance(time, str)), default=""), (run / "run.json").stat().st_mtime


def _line(key: str, run: Path) -> str:
    record = _record(run)
    started, objective = str(record.get("started") or "")[:16].replace("T", " "), record.get("objective")
    score = f", objective {objective:.4g}" if isinstance(objective, float) else ""
    return f"  {argument(key, str(run))}  ({_status(run)} {started}{score})".replace(" )", ")")


def _status(run: Path) -> str:
    return str(_record(run).get("status") or "unknown")


def _record(run: Path) -> dict[str, object]:
    try:
        return read_record(run, default={})
    except UserError:
        return {}
