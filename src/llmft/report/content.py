"""A run directory -> what its page says; whatever a run has not got is left out."""

import shlex
from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf

from llmft.metrics.format import interval, judge_lines, number, reasons, title
from llmft.report import examples
from llmft.report.curves import Series, curve_file, decisive, when_to_stop
from llmft.utils.text import duration


def page(files: Mapping[str, Any], found: Mapping[str, Series], settings: Any) -> dict[str, Any]:
    """Everything that the template shows, as text and numbers."""
    record, config, evaluation = files["record"], files["config"], files["evaluation"]
    names = [OmegaConf.select(config, f"{group}.name") or "?" for group in ("data", "model", "peft")]
    predictions = [row for row in files["predictions"] if isinstance(row, dict)]
    return {
        "title": f"{names[0]} on {names[1]}",
        "peft": names[2],
        "status": record.get("status", "unknown"),
        "reason": record.get("reason"),
        "started": record.get("started", ""),
        "verdict": verdict(evaluation),
        "advice": when_to_stop(found, *decisive(config)),
        "tiles": tiles(record, config),
        "scores": score_rows(evaluation),
        "scores_of": title(evaluation) if evaluation else "",
        "stands_in": evaluation["split"] if evaluation and evaluation["split"] in ("val", "train") else None,
        "notes": [*reasons(evaluation["scores"]), *judge_lines(evaluation)] if evaluation else [],
        "seeds": (evaluation or {}).get("seeds"),
        "examples": [examples.example(row) for row in predictions[: settings.examples]],
        "extremes": examples.extremes(predictions, settings.best_and_worst),
        "samples": examples.samples(files["samples"]),
        "account": account(record.get("data") or {}),
        "config": files["config_text"],
        "versions": record.get("versions") or {},
        "git": record.get("git"),
        "command": shlex.join(["python", "-m", *map(str, record.get("command") or ["llmft"])]),
    }


def record_objective(config: Any) -> str:
    """The metric that the run was judged by."""
    return OmegaConf.select(config, "objective") or "val/loss"


def verdict(evaluation: Mapping[str, Any] | None) -> dict[str, str]:
    """A few words, a kind (``good``, ``bad``, ``mixed``, ``none``) and a sentence."""
    if not evaluation:
        return {"kind": "none", "words": "Not evaluated", "sentence": "No test rows were answered (evaluate.rows=0)."}
    scores = {n: e for n, e in evaluation["scores"].items() if e.get("better") and n != "perplexity"}
    said = [entry.get("verdict") for entry in scores.values()]
    better, worse = said.count("better"), said.count("worse")
    words, kind = "No difference from its base seen", "none"
    if not any(said):
        words = "Not compared with a base"
    elif better and worse:
        words, kind = f"Better than its base on {better} scores, worse on {worse}", "mixed"
    elif better or worse:
        words, kind = ("Better than its base", "good") if better else ("Worse than its base", "bad")
    return {
        "kind": kind,
        "words": words,
        "sentence": f"{evaluation['headline'][:1].upper()}{evaluation['headline'][1:]}.",
    }


def tiles(record: Mapping[str, Any], config: Any) -> list[tuple[str, str, str]]:
    """The numbers that one looks for first: name, value, remark."""
    metrics, parameters = record.get("metrics") or {}, record.get("parameters") or {}
    before, after = metrics.get("before") or {}, metrics.get("after") or {}
    found = []
    for name, words in (("val/loss", "validation loss"), ("val/perplexity", "validation perplexity")):
        if after.get(name) is not None:
            found.append((words, number(after[name]), f"{number(before[name])} before" if before.get(name) else ""))
    if parameters.get("total"):
        share = 100 * parameters["trainable"] / parameters["total"]
        found.append(("trained weights", f"{share:.3g} %", f"{parameters['trainable']:,} of {parameters['total']:,}"))
    if metrics.get("steps") is not None:
        found.append(("optimizer steps", f"{metrics['steps']:,}", f"best: step {metrics.get('best_step')}"))
    if record.get("seconds") is not None:
        found.append(("wall time", duration(record["seconds"]), f"seed {record.get('seed')}"))
    if memory := record.get("peak_memory_mib"):
        found.append(("peak memory", f"{max(memory.values()):,.0f} MiB", " and ".join(memory)))
    rate = OmegaConf.select(config, "optim.lr")
    return found + ([("learning rate", f"{rate:g}", OmegaConf.select(config, "scheduler.name") or "")] if rate else [])


def score_rows(evaluation: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The metric table, each number as text."""
    return [
        {
            "name": name,
            "definition": entry.get("definition", ""),
            "base": number(entry.get("base")),
            "base_interval": interval(entry.get("base_interval")),
            "tuned": number(entry.get("tuned")),
            "tuned_interval": interval(entry.get("tuned_interval")),
            "difference": number(entry.get("difference"), sign=True),
            "difference_interval": interval(entry.get("difference_interval"), sign=True),
            "verdict": entry.get("verdict") or "",
        }
        for name, entry in (evaluation or {"scores": {}})["scores"].items()
    ]


def account(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What became of the rows."""
    found = [
        ("source", data.get("source")),
        ("SHA-256", data.get("sha256")),
        ("rows read", data.get("rows")),
        ("kept", data.get("kept")),
    ]
    found += [(f"dropped: {why}", count) for why, count in (data.get("dropped") or {}).items()]
    found += [(f"{name} rows", count) for name, count in (data.get("split") or {}).items()]
    found += [(f"{name}s trimmed", count) for name, count in (data.get("truncated") or {}).items() if count]
    found += [("supervised tokens", data.get("supervised_tokens"))]
    lost = data.get("lost_characters") or {}
    found += [("rows that the tokenizer cannot give back whole", lost["rows"])] if lost.get("rows") else []
    return [(name, f"{v:,}" if isinstance(v, int) else str(v)) for name, v in found if v is not None]


def steps_per_epoch(files: Mapping[str, Any]) -> int:
    """Optimizer steps of one epoch of a run; 1 where it did not get so far as to know."""
    batches = ((files["record"].get("data") or {}).get("batching") or {}).get("batches") or 1
    return -(-batches // (OmegaConf.select(files["config"], "trainer.accumulate_grad_batches") or 1))


def own_curve(files: Mapping[str, Any]) -> str | None:
    """The published curve that a run was trained beside, where it still is."""
    curve = OmegaConf.select(files["config"], "report.reference_curve")
    return curve if curve and curve_file(curve).is_file() else None
