"""Collect the content of a run's report; sections that a run has no data for are omitted."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from llmft.config.schema.evaluation import Report
from llmft.metrics.format import format_interval, format_number, judge_summary, reasons, title
from llmft.metrics.suites import all_scores
from llmft.metrics.verdict.verdict import stored_verdict
from llmft.report import data_section, examples
from llmft.report.best_step import BestStep
from llmft.report.blocks import blocks
from llmft.report.curves import curve_file
from llmft.report.next_steps import next_steps, without_places
from llmft.utils.shell import part
from llmft.utils.text import duration


def page_context(run: Path, files: Mapping[str, Any], best: BestStep | None, settings: Report) -> dict[str, Any]:
    """The variables of the ``run.html`` template, except the figures.

    Args:
        run: The run directory.
        files: Its files, as ``runs.read.load`` returns them.
        best: When the validation was best.
        settings: The ``report`` keys.
    """
    record, config, evaluation = files["record"], files["config"], files["evaluation"]
    named, peft = run_names(config)
    predictions = [row for row in files["predictions"] if isinstance(row, dict)]
    data = record.get("data") or {}
    return {
        "title": named,
        "peft": peft,
        "status": record.get("status", "unknown"),
        "reason": record.get("reason"),
        "verdict": stored_verdict(evaluation, record),
        "started": str(record.get("started", ""))[:16].replace("T", " "),
        "best": best,
        "tiles": tiles(record, config),
        "next_steps": next_steps(run, record, config, evaluation, best),
        "scores": score_rows(evaluation),
        "scores_of": title(evaluation) if evaluation else "",
        "has_suites": bool((evaluation or {}).get("suites")),
        "notes": [*reasons(all_scores(evaluation)), *judge_summary(evaluation)] if evaluation else [],
        "seeds": (evaluation or {}).get("seeds"),
        **examples.page_rows(predictions, files["samples"], settings.examples, settings.best_and_worst),
        "row_counts": data_section.row_counts(data),
        "findings": data_section.findings(data),
        "audit": data_section.audit_table(data),
        "blocks": blocks(record, evaluation),
        "exports": exports(record),
        "config": files["config_text"],
        "versions": record.get("versions") or {},
        "git": record.get("git"),
        "command": command_of(record),
    }


def command_of(record: Mapping[str, Any]) -> str:
    """The command that trains a run; of a job of a sweep, the one that trains this job alone."""
    command, overrides = [str(part) for part in record.get("command") or ["llmft"]], record.get("overrides")
    if {"-m", "--multirun"} & {*command} and isinstance(overrides, list):
        command = ["llmft", "train", *without_places([str(override) for override in overrides])]
    return " ".join(["python -m", *map(part, command)])


def run_names(config: DictConfig) -> tuple[str, str]:
    """``DATA on MODEL``, and the method; ``?`` for what the config does not name."""
    data, model, peft = (OmegaConf.select(config, f"{group}.name") or "?" for group in ("data", "model", "peft"))
    return f"{data} on {model}", peft


def contents(page: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The sections that the page has: id and title, in the order of ``run.html``."""
    known = [
        ("examples", "Examples", page["examples"]),
        ("next", "Next steps", page["next_steps"]),
        ("scores", "Scores", page["scores"]),
        ("curves", "Curves", page["curves"]),
        ("extremes", "Best and worst rows", page["extremes"]),
        ("samples", "Samples during training", page["samples"]),
        *((block.id, block.title, block) for block in page["blocks"]),
        ("data", "Data", page["row_counts"]),
        ("exports", "Exports", page["exports"]),
        ("reproduction", "Reproduction", page["command"]),
    ]
    return [(name, words) for name, words, found in known if found]


def record_objective(config: DictConfig) -> str:
    """The run's objective; ``val/loss`` if its config has none."""
    return OmegaConf.select(config, "objective") or "val/loss"


def exports(record: Mapping[str, Any]) -> list[dict[str, str]]:
    """A line for each export: form, runtime, and what was found when it was compared with the trained model there."""
    found = [line for line in record.get("exports") or [] if isinstance(line, dict)]
    return [
        {
            "form": str(line.get("form")),
            "weights": str(line.get("quantize") or line.get("dtype")),
            "runtime": str(line.get("runtime") or "not installed"),
            "status": str(line.get("status")),
            "difference": format_number(line.get("difference")),
            "to": str(line.get("to")) if line.get("kept") else "not kept",
            "time": str(line.get("time", ""))[:16].replace("T", " "),
        }
        for line in found
    ]


def tiles(record: Mapping[str, Any], config: DictConfig) -> list[tuple[str, str, str]]:
    """Key numbers of the run: name, value, remark."""
    metrics, parameters = record.get("metrics") or {}, record.get("parameters") or {}
    before, after = metrics.get("before") or {}, metrics.get("after") or {}
    found, model = [], record.get("model")
    dtype = model.get("dtype") if isinstance(model, Mapping) else None
    for name, words in (("val/loss", "validation loss"), ("val/perplexity", "validation perplexity")):
        if after.get(name) is not None:
            remark = [f"{format_number(before[name])} before training"] if before.get(name) else []
            remark = ", ".join([*remark, *([f"computed in {dtype}"] if dtype else [])])
            found.append((words, format_number(after[name]), remark))
    if parameters.get("total"):
        share = 100 * parameters["trainable"] / parameters["total"]
        remark = f"{parameters['trainable']:,} of {parameters['total']:,}"
        found.append(("trainable parameters", f"{share:.3g} %", remark))
    if metrics.get("steps") is not None:
        found.append(("optimizer steps", f"{metrics['steps']:,}", f"best: step {metrics.get('best_step')}"))
    if record.get("seconds") is not None:
        found.append(("wall time", duration(record["seconds"]), f"seed {record.get('seed')}"))
    if memory := record.get("peak_memory_mib"):
        found.append(("peak memory", f"{max(memory.values()):,.0f} MiB", " and ".join(memory)))
    rate = OmegaConf.select(config, "optim.lr")
    return found + ([("learning rate", f"{rate:g}", OmegaConf.select(config, "scheduler.name") or "")] if rate else [])


def score_rows(evaluation: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Rows of the score table, with numbers formatted."""
    return [
        {
            "name": name,
            "definition": entry.get("definition", ""),
            "base": format_number(entry.get("base")),
            "base_interval": format_interval(entry.get("base_interval")),
            "tuned": format_number(entry.get("tuned")),
            "tuned_interval": format_interval(entry.get("tuned_interval")),
            "difference": format_number(entry.get("difference"), sign=True),
            "difference_interval": format_interval(entry.get("difference_interval"), sign=True),
            "verdict": entry.get("verdict") or "",
        }
        for name, entry in all_scores(evaluation or {"scores": {}}).items()
    ]


def steps_per_epoch(files: Mapping[str, Any]) -> int:
    """Optimizer steps per epoch of a run; 1 if it stopped before this was known."""
    batches = ((files["record"].get("data") or {}).get("batching") or {}).get("batches") or 1
    return -(-batches // (OmegaConf.select(files["config"], "trainer.accumulate_grad_batches") or 1))


def config_reference_curve(files: Mapping[str, Any]) -> str | None:
    """The run's ``report.reference_curve``, if the file exists."""
    curve = OmegaConf.select(files["config"], "report.reference_curve")
    return curve if curve and curve_file(curve).is_file() else None
