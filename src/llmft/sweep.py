"""After a multirun: ``sweep.csv``, ``sweep.md`` and a leaderboard beside its runs."""

import csv
import json
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

OWN_COLUMN = ("model", "data", "peft", "optim.lr", "seed", "output_dir")


class SweepTable(Callback):
    """A row per run: what differed between them, and what came out."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ARG002
        """Read every run.json below the sweep's folder."""
        folder = Path(config.hydra.sweep.dir)
        files = sorted(folder.glob("*/run.json"), key=_number)
        records = [json.loads(file.read_text(encoding="utf-8")) for file in files]
        settings = [dict(o.split("=", 1) for o in record["overrides"] if "=" in o) for record in records]
        differ = [
            key for key in dict.fromkeys(k for s in settings for k in s) if len({s.get(key) for s in settings}) > 1
        ]
        rows = [
            _row(file, record, {key: setting.get(key) for key in differ if key not in OWN_COLUMN})
            for file, record, setting in zip(files, records, settings, strict=True)
        ]
        if rows:
            from llmft.report import leaderboard

            write(folder, rows)
            leaderboard.write(folder)


def write(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Both files; columns that are empty everywhere stay away."""
    columns = [
        name
        for name in dict.fromkeys(key for row in rows for key in row)
        if any(row.get(name) not in (None, "") for row in rows)
    ]
    with (folder / "sweep.csv").open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    cells = [columns, ["---"] * len(columns), *([_cell(row.get(name)) for name in columns] for row in rows)]
    (folder / "sweep.md").write_text("".join(f"| {' | '.join(line)} |\n" for line in cells), encoding="utf-8")


def _row(file: Path, record: dict[str, Any], differing: dict[str, Any]) -> dict[str, Any]:
    cfg = OmegaConf.load(file.parent / "config.yaml")
    metrics = record.get("metrics", {})
    before, after = metrics.get("before", {}), metrics.get("after", {})
    return {
        "run": file.parent.name,
        **{group: OmegaConf.select(cfg, f"{group}.name") for group in ("model", "data", "peft")},
        "lr": OmegaConf.select(cfg, "optim.lr"),
        "seed": record["seed"],
        **differing,
        "status": record["status"],
        "objective": record.get("objective"),
        **{f"{name} before": value for name, value in before.items()},
        **after,
        "trainable": record.get("parameters", {}).get("trainable"),
        "steps": metrics.get("steps"),
        "seconds": record.get("seconds"),
        "reason": record.get("reason"),
    }


def _number(file: Path) -> tuple[int, str]:
    name = file.parent.name
    return (int(name) if name.isdigit() else 1 << 30, name)


def _cell(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value if value is not None else "")
    return text.replace("|", "\\|").replace("\n", " ")
