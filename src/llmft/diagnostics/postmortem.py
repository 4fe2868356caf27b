"""Report of a halted training in ``halt/`` of its run directory: diagnosis, batches, and all that is needed to rerun them."""

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llmft.diagnostics import forward_trace
from llmft.models.module import InstructionModule
from llmft.runs.checkpoint_io import load_plain
from llmft.utils.errors import UserError
from llmft.utils.files import atomic_folder
from llmft.utils.json import write as write_json
from llmft.utils.text import first_line

MAX_SHOWN = 8  # rows and steps in the message; the report has all


@dataclass
class StepBatches:
    """The micro-batches of an optimizer step (or a validation batch), and the random state before each."""

    batches: list[dict[str, Any]] = field(default_factory=list)
    states: list[dict[str, Tensor]] = field(default_factory=list)

    def add(self, batch: dict[str, Any], device: torch.device) -> None:
        """Add a micro-batch; call this before its forward pass."""
        self.batches.append(batch)
        self.states.append(forward_trace.random_state(device))

    @property
    def rows(self) -> list[str]:
        """Source locations of the rows (``rows.jsonl:3``), in order."""
        return [place for batch in self.batches for place in places_of(batch)]


def places_of(batch: dict[str, Any]) -> Iterator[str]:
    """Source locations of a batch's rows; those of a packed sequence are a nested list."""
    for place in batch["places"]:
        yield from [place] if isinstance(place, str) else place


def examine(module: InstructionModule, window: StepBatches, trainer: Any) -> dict[str, Any]:
    """Find non-finite weights and gradients, and the first bad module by rerunning the batches under hooks.

    Args:
        module: The module in the mode (train or eval) in which it halted; its gradients are discarded.
        window: The batches of the step.
        trainer: The Lightning trainer, for its precision plugin.
    """
    weights = [name for name, p in module.model.named_parameters() if not torch.isfinite(p).all()]
    gradients = [
        name for name, p in module.model.named_parameters() if p.grad is not None and not torch.isfinite(p.grad).all()
    ]
    found = {"weights_not_finite": weights, "gradients_not_finite": gradients, "not_run_again": None}
    found |= {"first_bad_module": None, "first_bad_gradient": None, "largest_output": None}
    backward = bool(gradients) and module.training
    for p in module.model.parameters():
        p.grad = None  # frees memory for the backward pass; they are no longer needed
    try:
        context = trainer.precision_plugin.forward_context
        states = window.states if module.training else []
        seen, _, _ = forward_trace.rerun(
            module.forward_pass, window.batches, states, context=context, backward=backward
        )
    except Exception as error:  # any error here (mostly out of memory) must not hide the reason of the halt
        return found | {"not_run_again": f"{type(error).__name__}: {first_line(error)}"}
    return found | {
        "first_bad_module": forward_trace.as_json(seen.first_bad),
        "first_bad_gradient": next(iter(seen.broken_gradients), None),
        "largest_output": forward_trace.as_json(seen.largest),
    }


def write(folder: Path, report: dict[str, Any], window: StepBatches, module: InstructionModule) -> None:
    """Atomically write ``report.json``, ``window.pt`` (for ``weights_only=True``) and ``weights.safetensors``.

    Raises:
        OSError: The disk is full, or permission is denied.
    """
    from safetensors.torch import save_file

    trainable = module.trainable_names()
    weights = {name: p.detach().cpu().contiguous() for name, p in module.named_parameters() if name in trainable}
    with atomic_folder(folder) as unfinished:
        write_json(unfinished / "report.json", report)
        torch.save(_to_plain({"batches": window.batches, "states": window.states}), unfinished / "window.pt")
        save_file(weights, unfinished / "weights.safetensors")


def read(folder: Path) -> tuple[dict[str, Any], StepBatches, dict[str, Tensor]]:
    """Read the report, the batches and the trainable weights of a halted training.

    Raises:
        UserError: A file is missing or invalid, or holds more than data (pickled code).
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        if missing := {"what", "way_out", "during", "step", "loss", "precision"} - set(report):
            raise KeyError(f"report.json lacks {', '.join(sorted(missing))}")
        window = load_plain(folder / "window.pt")
        weights = load_file(folder / "weights.safetensors")
        return report, StepBatches(window["batches"], window["states"]), weights
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{folder}: cannot be used ({type(error).__name__}: {first_line(error)})") from None


def format_message(report: dict[str, Any], folder: Path | None) -> str:
    """Format the report for the terminal, with a summary in the first line.

    Args:
        report: The content of ``report.json``.
        folder: The folder it was written to; None if writing failed.
    """
    rows, history = report["rows"], report["history"][-MAX_SHOWN:]
    more = f" and {len(rows) - MAX_SHOWN} more" if len(rows) > MAX_SHOWN else ""
    when = f"at step {report['step']}, epoch {report['epoch']}" if report["step"] else "before the first step"
    facts = {
        f"rows ({len(rows)})": ", ".join(rows[:MAX_SHOWN]) + more,
        "first bad module": _first_bad(report),
        "weights": _broken(report["weights_not_finite"]) or "all finite",
        "gradients": _broken(report["gradients_not_finite"]),
        "named": _named(report["weights_named"]),
        "loss": " ".join(f"{step['loss']:.4g}" for step in history),
        "gradient norm": " ".join(f"{step['grad_norm']:.4g}" for step in history),
        "learning rate": f"{report['learning_rate']:.4g}" if report["learning_rate"] is not None else "",
        "way out": report["way_out"],
        "debug with": f"python -m llmft replay run={shlex.quote(str(folder.parent))}" if folder else "",
        "not written": report.get("not_written", ""),
    }
    lines = [f"  {name + ':':<18}{text}" for name, text in facts.items() if text]
    return "\n".join([f"halted {when}: {report['what']}", *lines])


def _first_bad(report: dict[str, Any]) -> str:
    if report["not_run_again"]:
        return f"unknown, the batch could not be rerun ({report['not_run_again']})"
    if bad := report["first_bad_module"]:
        return forward_trace.describe_call(forward_trace.from_json(bad))
    if report["first_bad_gradient"]:
        return f"none in the forward pass; first non-finite gradient at the output of {report['first_bad_gradient']}"
    if report["weights_named"] or not report["largest_output"]:
        return ""
    largest = forward_trace.from_json(report["largest_output"])
    return f"none, all outputs are finite; the largest value is {largest.output.largest:.3g}, from {largest.module}"


def _broken(names: list[str]) -> str:
    return f"{len(names)} not finite, first: {names[0]}" if names else ""


def _named(names: list[str]) -> str:
    return ", ".join(names[:MAX_SHOWN]) + (f" and {len(names) - MAX_SHOWN} more" if len(names) > MAX_SHOWN else "")


def _to_plain(value: Any) -> Any:
    """Convert to what ``torch.load(weights_only=True)`` accepts: CPU tensors, containers, numbers and strings."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, dict):
        return {str(key): _to_plain(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [_to_plain(child) for child in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def gather_windows(window: StepBatches, trainer: Any) -> StepBatches:
    """Gather the batches and random states of all ranks; a collective call."""
    if trainer.world_size == 1:
        return window
    windows: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(windows, (_to_plain(window.batches), _to_plain(window.states)))
    return StepBatches([b for batches, _ in windows for b in batches], [s for _, states in windows for s in states])
