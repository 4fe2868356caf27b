"""A run directory as a leaderboard reads it."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from llmft.config.metric_names import SCORE_GROUPS
from llmft.config.tree import walk
from llmft.metrics.verdict.verdict import Verdict, stored_verdict
from llmft.report import content, curves
from llmft.report.curves import Series
from llmft.runs import read
from llmft.utils.text import first_line


@dataclass(frozen=True, eq=False)
class BoardRun:
    """What a leaderboard needs of a run.

    Attributes:
        name: Its folder, relative to that of the leaderboard.
        settings: Every value of its config by path; lists are one value.
        typed: The config keys of its command line.
        overrides: Its command line.
        monitor: The metric that is its objective.
        before: That metric before training.
        test: Scores of its evaluation.
        trainable: Trainable parameters in per cent.
        speed: Median of the supervised tokens per second.
        memory: Peak in MiB.
        predictions: The rows of ``predictions.jsonl``.
        split: The split that these come from.
        dtypes: What it was trained (and validated) in, and evaluated in; None for older runs.
        validation: Size and identity of the references of the objective's validation set, as of
            ``data.preprocessing.reference_size``; {} for older runs.
        data: Row counts, as in ``run.json``.
        curve: The objective over steps.
        verdict: Its verdict.
        has_report: Whether ``report.html`` is in its folder.
    """

    name: str
    status: str
    reason: str
    settings: Mapping[str, Any]
    typed: frozenset[str]
    overrides: Sequence[str]
    monitor: str
    before: float | None
    objective: float | None
    seed: int | None
    test: Mapping[str, float | None]
    trainable: float | None
    speed: float | None
    memory: float | None
    seconds: float | None
    predictions: Sequence[Mapping[str, Any]] = field(repr=False)
    split: str
    dtypes: tuple[str | None, str | None]
    validation: Mapping[str, Any]
    data: Mapping[str, Any]
    curve: Series | None
    verdict: Verdict
    has_report: bool

    @property
    def is_finished(self) -> bool:
        """Whether it can be ranked."""
        return self.status == "finished" and self.objective is not None

    @property
    def answers_only(self) -> bool:
        """Whether its losses are of the answers alone, and not also of prompts or of earlier turns."""
        turns = self.settings.get("data.train_on_turns", "last")
        return self.settings.get("data.train_on", "answer") == "answer" and turns == "last"


def read_runs(folder: Path) -> list[BoardRun]:
    """All runs below a folder, in the order of their names, numbers as numbers."""
    files = sorted(folder.rglob("run.json"), key=lambda file: [_natural_key(part) for part in file.parts])
    return [_read(file.parent, folder) for file in files]


def _read(folder: Path, root: Path) -> BoardRun:
    loaded = read.load(folder)
    record, config = loaded["record"], loaded["config"]
    metrics, parameters, data = (_mapping(record.get(name)) for name in ("metrics", "parameters", "data"))
    found = curves.read_metrics(folder / "metrics.csv")
    speeds = found.get("train/tokens_per_second")
    monitor = content.record_objective(config)
    split = str(_mapping(loaded["evaluation"]).get("split") or "test")
    listed = record.get("overrides")
    overrides = [text for text in listed if isinstance(text, str)] if isinstance(listed, list) else []
    return BoardRun(
        name=folder.relative_to(root).as_posix() if folder != root else folder.name,
        status=str(record.get("status", "unknown")),
        reason=first_line(record.get("reason") or ""),
        settings=_settings(config),
        typed=frozenset(text.partition("=")[0].lstrip("+~") for text in overrides),
        overrides=overrides,
        monitor=monitor,
        before=_mapping(metrics.get("before")).get(monitor),
        objective=record.get("objective"),
        seed=record.get("seed"),
        test=_mapping(metrics.get(SCORE_GROUPS.get(split, "test")) or metrics.get("test")),
        trainable=100 * parameters["trainable"] / parameters["total"] if parameters.get("total") else None,
        speed=statistics.median(speeds.values) if speeds else None,
        memory=max(_mapping(record.get("peak_memory_mib")).values(), default=None),
        seconds=record.get("seconds"),
        predictions=[row for row in loaded["predictions"] if isinstance(row, dict)],
        split=split,
        dtypes=(_mapping(record.get("model")).get("dtype"), _mapping(loaded["evaluation"]).get("dtype")),
        validation=_validation(data, monitor.rpartition("/")[0]),
        data=data,
        curve=found.get(monitor),
        verdict=stored_verdict(_mapping(loaded["evaluation"]), record),
        has_report=(folder / "report.html").is_file(),
    )


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _validation(data: Mapping[str, Any], split: str) -> dict[str, Any]:
    """The size of a validation set in ``run.json``, without what is no number above 0 (somebody else may have edited it)."""
    size = data.get("validation") if split == "val" else _mapping(data.get("extra_validation")).get(split)
    size = _mapping(size)
    numbers = {name: size.get(name) for name in ("rows", "tokens", "bytes")}
    known = {name: n for name, n in numbers.items() if isinstance(n, int) and n > 0}
    return known | ({"identity": size["identity"]} if isinstance(size.get("identity"), str) else {})


def _settings(config: DictConfig) -> dict[str, Any]:
    nodes = walk(OmegaConf.to_container(config))
    return {path: value for path, value in nodes if "[" not in path and not isinstance(value, dict)}


def _natural_key(part: str) -> tuple[int, int, str]:
    return (0, int(part), "") if part.isdigit() else (1, 0, part)
