"""A halted training -> ``halt/`` in its run directory: what happened, the rows, and all that is needed to run them again."""

import json
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from llmft.diagnostics import forward_trace
from llmft.models.module import InstructionModule
from llmft.utils.errors import UserError
from llmft.utils.json import finite
from llmft.utils.text import first_line

SHOWN = 8  # rows and steps in the message; the report holds all


@dataclass
class StepBatches:
    """The micro-batches of an optimizer step (or a batch of a validation), referenced, and the random state before each."""

    batches: list[dict[str, Any]] = field(default_factory=list)
    states: list[dict[str, Tensor]] = field(default_factory=list)

    def add(self, batch: dict[str, Any], device: torch.device) -> None:
        """One more micro-batch; call it before its forward pass."""
        self.batches.append(batch)
        self.states.append(forward_trace.random_state(device))

    @property
    def rows(self) -> list[str]:
        """Where its rows come from, in their order."""
        return [place for batch in self.batches for place in places_of(batch)]


def places_of(batch: dict[str, Any]) -> Iterator[str]:
    """The places of a batch's rows (several rows of a pack may stand in a list of their own)."""
    for place in batch["places"]:
        yield from [place] if isinstance(place, str) else place


def examine(module: InstructionModule, window: StepBatches, trainer: Any) -> dict[str, Any]:
    """Find where it broke: weights, gradients, and the first bad module, by running the window again under hooks."""
    weights = [name for name, p in module.model.named_parameters() if not torch.isfinite(p).all()]
    gradients = [
        name for name, p in module.model.named_parameters() if p.grad is not None and not torch.isfinite(p.grad).all()
    ]
    found = {"weights_not_finite": weights, "gradients_not_finite": gradients, "not_run_again": None}
    found |= {"first_bad_module": None, "first_bad_gradient": None, "largest_output": None}
    backward = bool(gradients) and module.training
    for p in module.model.parameters():
        p.grad = None  # room for the backward pass; nothing will use them any more
    try:
        context = trainer.precision_plugin.forward_context
        states = window.states if module.training else []
        seen, _, _ = forward_trace.run_again(
            module.forward_pass, window.batches, states, context=context, backward=backward
        )
    except Exception as error:  # the halt must be told even if looking at it fails (out of memory, mostly)
        return found | {"not_run_again": f"{type(error).__name__}: {first_line(error)}"}
    return found | {
        "first_bad_module": forward_trace.as_json(seen.first_bad),
        "first_bad_gradient": next(iter(seen.broken_gradients), None),
        "largest_output": forward_trace.as_json(seen.largest),
    }


def write(folder: Path, report: dict[str, Any], window: StepBatches, module: InstructionModule) -> None:
    """Write ``report.json``, ``window.pt`` (loads with ``weights_only=True``) and ``weights.safetensors``, all or nothing.

    Raises:
        OSError: There is no room, or no permission.
    """
    from safetensors.torch import save_file

    unfinished = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    text = json.dumps(finite(report), indent=2, ensure_ascii=False, allow_nan=False)
    (unfinished / "report.json").write_text(text + "\n", encoding="utf-8")
    torch.save(_plain({"batches": window.batches, "states": window.states}), unfinished / "window.pt")
    learnt = module.trainable_names()
    weights = {name: p for name, p in module.named_parameters() if name in learnt}
    save_file({name: p.detach().cpu().contiguous() for name, p in weights.items()}, unfinished / "weights.safetensors")
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)


def read(folder: Path) -> tuple[dict[str, Any], StepBatches, dict[str, Tensor]]:
    """Report, window and trainable weights of a halt.

    Raises:
        UserError: A file is missing, broken, or holds more than data.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        if missing := {"what", "way_out", "during", "step", "loss", "precision"} - set(report):
            raise KeyError(f"report.json lacks {', '.join(sorted(missing))}")
        window = torch.load(folder / "window.pt", map_location="cpu", weights_only=True)
        weights = load_file(folder / "weights.safetensors")
        return report, StepBatches(window["batches"], window["states"]), weights
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, UnpicklingError, SafetensorError) as error:
        raise UserError(f"{folder}: cannot be used ({type(error).__name__}: {first_line(error)})") from None


def message(report: dict[str, Any], folder: Path | None) -> str:
    """The report for people; the first line says it all in short.

    Args:
        report: As it is written.
        folder: Where it was written; None if that failed.
    """
    rows, history = report["rows"], report["history"][-SHOWN:]
    more = f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
    when = f"at step {report['step']}, epoch {report['epoch']}" if report["step"] else "before the first step"
    facts = {
        f"rows ({len(rows)})": ", ".join(rows[:SHOWN]) + more,
        "first bad module": _first_bad(report),
        "weights": _broken(report["weights_not_finite"]) or "all finite",
        "gradients": _broken(report["gradients_not_finite"]),
        "named": _named(report["weights_named"]),
        "loss": " ".join(f"{step['loss']:.4g}" for step in history),
        "gradient norm": " ".join(f"{step['grad_norm']:.4g}" for step in history),
        "learning rate": f"{report['learning_rate']:.4g}" if report["learning_rate"] is not None else "",
        "way out": report["way_out"],
        "look closer": f"python -m llmft replay run={shlex.quote(str(folder.parent))}" if folder else "",
        "not written": report.get("not_written", ""),
    }
    lines = [f"  {name + ':':<18}{text}" for name, text in facts.items() if text]
    return "\n".join([f"halted {when}: {report['what']}", *lines])


def _first_bad(report: dict[str, Any]) -> str:
    if report["not_run_again"]:
        return f"not found, the rows could not be run again ({report['not_run_again']})"
    if bad := report["first_bad_module"]:
        return forward_trace.describe(forward_trace.from_json(bad))
    if report["first_bad_gradient"]:
        return f"none in the forward pass; the gradient breaks at the output of {report['first_bad_gradient']}"
    if report["weights_named"] or not report["largest_output"]:
        return ""
    largest = forward_trace.from_json(report["largest_output"])
    return (
        f"none, all outputs are finite; the largest number, {largest.output.largest:.3g}, comes from {largest.module}"
    )


def _broken(names: list[str]) -> str:
    return f"{len(names)} not finite, first: {names[0]}" if names else ""


def _named(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _plain(value: Any) -> Any:
    """What ``torch.load(weights_only=True)`` takes: tensors on the CPU, containers, numbers and text."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, dict):
        return {str(key): _plain(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(child) for child in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def of_all_ranks(window: StepBatches, trainer: Any) -> StepBatches:
    """The windows of all ranks as one; all ranks must call it."""
    if trainer.world_size == 1:
        return window
    windows: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(windows, (_plain(window.batches), _plain(window.states)))
    return StepBatches([b for batches, _ in windows for b in batches], [s for _, states in windows for s in states])
