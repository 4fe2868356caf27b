"""What to do next with a run: commands to copy, with the run's own paths and keys."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from llmft.report.best_step import BestStep
from llmft.utils.shell import argument, part

# Overrides of a run's place, alone or in a sweep; a new training has its own.
PLACES = ("output_dir=", "resume=", "hydra.", "callbacks.pruning.study=", "callbacks.pruning.trial=")


class Step(NamedTuple):
    """A command, and what it is for."""

    why: str
    command: str


def next_steps(
    run: Path,
    record: Mapping[str, Any],
    config: DictConfig,
    evaluation: Mapping[str, Any] | None,
    best: BestStep | None,
) -> list[Step]:
    """The commands that make sense for a run in its state.

    Args:
        run: The run directory.
        record: The content of ``run.json``.
        config: The run's config.
        evaluation: The content of ``evaluation.json``; None if nothing was evaluated.
        best: When the validation was best.
    """
    if record.get("status") != "finished":
        return list(_unfinished(run, record))
    steps = [
        Step("Ask it a question, and its base model too", _command("answer", run, 'question="..."', "compare=true")),
        Step("Chat with it in the terminal", _command("chat", run)),
    ]
    if not evaluation or evaluation["rows"] < evaluation["of"]:
        steps.append(Step("Evaluate it on all rows of the split", _command("evaluate", run)))
    if again := _train_again(record, config, evaluation, best):
        steps.append(again)
    return [*steps, Step("Export it for other tools", _command("export", run, "to=exported"))]


def _unfinished(run: Path, record: Mapping[str, Any]) -> Iterator[Step]:
    if record.get("status") == "halted":
        yield Step("Run the step again at which the guard halted it", _command("replay", run))
    if (run / "checkpoints").is_dir():
        yield Step("Resume it from its last checkpoint", f"python -m llmft {argument('resume', shown_path(run))}")


def _train_again(
    record: Mapping[str, Any], config: DictConfig, evaluation: Mapping[str, Any] | None, best: BestStep | None
) -> Step | None:
    """The training with the changes that its validation curve and its split suggest; None if there are none."""
    changes, reasons = dict[str, str](), list[str]()
    if best and best.turned and best.step:
        changes["trainer.max_steps"] = str(best.step)
        reasons.append("up to the step where the validation was best")
    elif best and best.turned and (rate := OmegaConf.select(config, "optim.lr")):
        changes["optim.lr"] = f"{rate / 10:.3g}"
        reasons.append("with a lower learning rate")
    elif best and best.step == best.last_step:
        key = "trainer.max_steps" if (OmegaConf.select(config, "trainer.max_steps") or -1) > 0 else "trainer.max_epochs"
        if length := OmegaConf.select(config, key):
            changes[key] = str(2 * length)
            reasons.append("for longer: the validation was still improving")
    if evaluation and evaluation["split"] != "test" and not OmegaConf.select(config, "data.test_path"):
        changes["data.split.test"] = "0.1"
        reasons.append("with a test split, which selects no checkpoint")
    if not changes or not isinstance(overrides := record.get("overrides"), list):
        return None
    return Step(f"Train again {', '.join(reasons)}", _replaced(["llmft", "train", *map(str, overrides)], changes))


def _replaced(command: Sequence[str], changes: Mapping[str, str]) -> str:
    """The command without its places and with other values."""
    kept = without_places(command, *(f"{key}=" for key in changes))
    return " ".join(["python -m", *map(part, [*kept, *(f"{key}={value}" for key, value in changes.items())])])


def without_places(overrides: Sequence[str], *others: str) -> list[str]:
    """Overrides without those of a run's place, and without ``others`` (the beginnings of overrides)."""
    return [text for text in overrides if not text.lstrip("+~").startswith((*PLACES, *others))]


def _command(name: str, run: Path, *more: str) -> str:
    return " ".join(["python -m llmft", name, argument("run", shown_path(run)), *more])


def shown_path(run: Path) -> str:
    """Relative to the working directory where that is shorter, so that the line can be read."""
    path, here = run.absolute(), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) and path != here else str(path)
