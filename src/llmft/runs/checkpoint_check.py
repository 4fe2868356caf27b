"""Whether a checkpoint is complete: names, shapes, dtypes, finite values, optimizer states, random states, counters.

A checkpoint that lacks a part loads without an error: Lightning skips a callback's state that is missing, torch an optimizer
state, and ``load_state_dict`` casts int64 to float32. The training would continue, but not as it would have.
"""

import math
import random
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llmft.runs.checkpoint_io import load
from llmft.runs.value_faults import at, count_faults, kind, number, state_faults, tensor_faults, value_faults
from llmft.utils.errors import UserError

ANEW = "put a copy of the file back, or train again in another output_dir"
PARTS = ("global_step", "epoch", "state_dict", "optimizer_states", "lr_schedulers", "loops", "callbacks", "randomness")
# Lightning's counters of the fit loop that a resumed training continues from; each has a total, and one of the epoch.
OPTIMIZER = ("epoch_loop.automatic_optimization.optim_progress", "optimizer")
COUNTERS = {
    ("epoch_progress",): ("ready", "started", "processed", "completed"),
    ("epoch_loop.batch_progress",): ("ready", "started", "processed", "completed"),
    ("epoch_loop.scheduler_progress",): ("ready", "completed"),
    (*OPTIMIZER, "step"): ("ready", "completed"),
    (*OPTIMIZER, "zero_grad"): ("ready", "started", "completed"),
}


class DamagedCheckpoint(UserError):
    """A checkpoint cannot be resumed from."""


@dataclass
class Expected:
    """What a checkpoint of a training holds.

    Attributes:
        weights: The trainable parameters by their names in ``state_dict``, in the optimizer's order.
        moments: Of a parameter: the optimizer's state after one step, by name, with a ``TensorKind`` for each tensor; empty
            if it is not known.
        group: The optimizer's settings (``lr``, ``betas``).
        schedule: The state of the learning rate schedule at step 0.
        callbacks: The states of the callbacks at step 0, by Lightning's ``state_key``; without those that have none.
        plugins: The state of Lightning's precision plugin (the gradient scaler of float16), by its name.
        ranks: Number of processes, each with its random states.
        batches: Batches of one epoch; None for a stream.
        unfreezes: Whether parameters are unfrozen step by step: until then they have no optimizer state.
    """

    weights: Mapping[str, Tensor]
    moments: Callable[[Tensor], Mapping[str, Any]]
    group: Mapping[str, Any]
    schedule: Mapping[str, Any]
    callbacks: Mapping[str, Mapping[str, Any]]
    plugins: Mapping[str, Mapping[str, Any]]
    ranks: int = 1
    batches: int | None = None
    unfreezes: bool = False


def load_checked(file: Path) -> dict[str, Any]:
    """Load a checkpoint, and compare its bytes with their checksums.

    Raises:
        UserError: It cannot be read, or bytes have changed since it was written.
    """
    found = load(file)
    if fault := damaged_bytes(file):
        raise UserError(f"{file}: is damaged: {fault}")
    return found


def load_last(last: Path) -> dict[str, Any]:
    """As ``load_checked``, for ``last.ckpt`` of a run that is resumed; the message has the way out.

    Raises:
        DamagedCheckpoint: As ``load_checked``.
    """
    try:
        return load_checked(last)
    except UserError as error:
        raise DamagedCheckpoint(f"{error}; {way_out(last)}") from None


def way_out(last: Path, expected: Expected | None = None) -> str:
    """What to do about a damaged ``last.ckpt``: resume from ``best.ckpt`` if that is complete.

    Args:
        last: In the run's ``checkpoints`` folder.
        expected: What it must hold; None if that is not known yet.
    """
    best = last.with_name("best.ckpt")
    try:
        state = load_checked(best)
    except UserError:
        return ANEW
    if expected and next(faults(state, expected), None):
        return ANEW
    return f"best.ckpt (step {state['global_step']}) is not: copy it to {last.name} to resume from there"


def damaged_bytes(file: Path) -> str | None:
    """A checkpoint is a zip archive with a CRC-32 of each tensor, which ``torch.load`` ignores; None if all match."""
    try:
        with zipfile.ZipFile(file) as archive:
            name = archive.testzip()
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        return f"it cannot be read ({error})"
    return f"{name} in it is not what was written (CRC-32)" if name else None


def faults(checkpoint: Mapping[str, Any], expected: Expected) -> Iterator[str]:
    """Every fault, as ``PART: what is wrong``; only the missing parts if there are any."""
    if missing := [part for part in PARTS if part not in checkpoint]:
        yield f"{missing[0]} is missing"
        return
    yield from counter_faults(checkpoint, expected)
    yield from weight_faults(checkpoint["state_dict"], expected.weights)
    yield from optimizer_faults(checkpoint, expected)
    yield from schedule_faults(checkpoint, expected)
    yield from randomness_faults(checkpoint["randomness"], expected.ranks)
    if expected.batches is None and not isinstance(checkpoint.get("stream"), list):
        yield "stream, the windows that it has counted, is missing"
    for name, sample in expected.plugins.items():
        yield from state_faults(name, checkpoint.get(name), sample)
    for name, sample in expected.callbacks.items():
        yield from state_faults(f"callbacks: {name}", at(checkpoint["callbacks"], (name,)), sample)
    best = at(checkpoint["callbacks"], ("Checkpoints", "best_metrics"))
    for name, value in best.items() if isinstance(best, Mapping) else ():
        yield from value_faults(f"callbacks: Checkpoints: best_metrics: {name}", value, -math.inf)


def weight_faults(found: Any, wanted: Mapping[str, Tensor]) -> Iterator[str]:
    """Faults of a state dict: missing, unknown, of another shape or dtype, not finite."""
    if not isinstance(found, Mapping):
        yield f"state_dict must be a dict of tensors, is {kind(found)}"
        return
    yield from (f"state_dict: {name} is missing" for name in wanted if name not in found)
    for name, value in found.items():
        if name in wanted:
            yield from tensor_faults(f"state_dict: {name}", value, wanted[name].dtype, wanted[name].shape)
        else:
            yield f"state_dict: {name} is no trainable parameter of this model and peft"


def counter_faults(checkpoint: Mapping[str, Any], expected: Expected) -> Iterator[str]:
    """Faults of the counters of steps, batches and epochs."""
    step, fit = checkpoint["global_step"], at(checkpoint["loops"], ("fit_loop",))
    yield from count_faults("global_step", step)
    yield from count_faults("epoch", checkpoint["epoch"])
    for path, names in COUNTERS.items():
        for place in ((*path, scope, name) for scope in ("total", "current") for name in names):
            yield from count_faults(f"loops: {'.'.join(place)}", at(fit, place))
    stepped = ("epoch_loop.state_dict", "_batches_that_stepped")
    yield from count_faults(f"loops: {'.'.join(stepped)}", at(fit, stepped))
    is_last = at(fit, ("epoch_loop.batch_progress", "is_last_batch"))
    yield from value_faults("loops: epoch_loop.batch_progress.is_last_batch", is_last, False)
    steps = at(fit, (*OPTIMIZER, "step", "total", "completed"))
    if steps != step:
        yield f"loops count {steps} optimizer steps, global_step is {step}"
    batch = number(at(fit, ("epoch_loop.batch_progress", "current", "completed")))
    if expected.batches is not None and batch > expected.batches:
        yield f"loops are at batch {batch:g} of an epoch of {expected.batches}"


def optimizer_faults(checkpoint: Mapping[str, Any], expected: Expected) -> Iterator[str]:
    """Faults of the optimizer's states: one for each trainable parameter, complete and finite."""
    found = checkpoint["optimizer_states"]
    found = found[0] if isinstance(found, list) and len(found) == 1 else None
    state, groups = at(found, ("state",)), at(found, ("param_groups",))
    if not isinstance(state, Mapping) or not isinstance(groups, list):
        yield "optimizer_states must hold the state and param_groups of one optimizer"
        return
    params = [at(group, ("params",)) for group in groups]
    keys = [key for part in params if isinstance(part, list) for key in part]
    if len(keys) != len(expected.weights):
        yield f"optimizer_states has {len(keys)} parameters, the model trains {len(expected.weights)}"
        return
    for group in groups:  # torch fills in a switch that its older version did not have
        there = {name: value for name, value in expected.group.items() if not isinstance(value, bool) or name in group}
        yield from state_faults("optimizer_states", group, there)
    unstepped = checkpoint.get("unstepped")
    for key, (name, weight) in zip(keys, expected.weights.items(), strict=True):
        if key in state:
            yield from state_faults(f"optimizer_states: {name}", state[key], expected.moments(weight))
            yield from _step_faults(f"optimizer_states: {name}", state[key], checkpoint["global_step"])
        elif key not in (unstepped or ()) and not (expected.unfreezes and unstepped is None):
            yield f"optimizer_states: {name} is missing"


def _step_faults(name: str, found: Any, step: Any) -> Iterator[str]:
    own = number(at(found, ("step",)))
    if own < 0 or own > number(step):
        yield f"{name}: is at step {own:g}, the checkpoint at step {kind(step)}"


def schedule_faults(checkpoint: Mapping[str, Any], expected: Expected) -> Iterator[str]:
    """Faults of the learning rate schedule."""
    found = checkpoint["lr_schedulers"]
    if not isinstance(found, list) or len(found) != 1:
        yield "lr_schedulers must hold the state of one schedule"
        return
    # names with an underscore come and go with the versions of torch
    public = {name: value for name, value in expected.schedule.items() if name[0] != "_" or name == "_last_lr"}
    yield from state_faults("lr_schedulers", found[0], public)
    yield from _step_faults("lr_schedulers", {"step": at(found[0], ("last_epoch",))}, checkpoint["global_step"])


def randomness_faults(found: Any, ranks: int) -> Iterator[str]:
    """Faults of the random states of Python, NumPy and torch, for each process."""
    for rank in map(str, range(ranks)):
        for name, restore in RESTORE.items():
            try:
                restore(at(found, (rank, name)))
            except (TypeError, ValueError, AttributeError, RuntimeError, IndexError, OverflowError):
                yield f"randomness: the state of {name}, process {rank}, is missing or no such state"
    if isinstance(found, Mapping) and len(found) != ranks:
        yield f"randomness: of {len(found)} processes, the run has {ranks}"


def _numpy_state(state: Any) -> None:
    name, keys, *rest = state
    np.random.RandomState().set_state((name, keys.numpy().astype(np.uint32), *rest))


RESTORE: dict[str, Callable[[Any], Any]] = {
    "python": lambda state: random.Random().setstate(state),  # noqa: S311 (not cryptography)
    "torch": lambda state: torch.Generator().set_state(state),
    "numpy": _numpy_state,
}
