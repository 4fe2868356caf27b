"""Rerun a batch under forward hooks to find the first module with a non-finite output."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from llmft.models.forward import Forward


@dataclass(frozen=True)
class TensorState:
    """Statistics of the floating-point tensors in a module's input or output.

    Attributes:
        numbers: Number of elements.
        broken: Number of elements that are not finite.
        largest: Largest absolute value of the finite elements; None if there are none.
    """

    numbers: int = 0
    broken: int = 0
    largest: float | None = None

    def __str__(self) -> str:
        if not self.numbers:
            return "ids"
        if not self.broken:
            return f"finite, up to {self.largest:.3g}"
        rest = "" if self.largest is None else f", the others up to {self.largest:.3g}"
        return f"{self.broken:,} of {self.numbers:,} not finite{rest}"


@dataclass(frozen=True)
class ModuleCall:
    """A call of a module: its name, its class, and the state of its input and output."""

    module: str
    kind: str
    input: TensorState
    output: TensorState


@dataclass
class ForwardTrace:
    """Context manager with forward hooks on every module of a model; they are removed on exit.

    Attributes:
        model: A torch module.
        seen: Calls in order of completion, so that a submodule comes before its parent.
        broken_gradients: Modules with a non-finite gradient at their output, in order of the backward pass.
    """

    model: torch.nn.Module
    seen: list[ModuleCall] = field(default_factory=list)
    broken_gradients: list[str] = field(default_factory=list)

    def __enter__(self) -> "ForwardTrace":
        self._hooks = [
            module.register_forward_hook(self._record(name), with_kwargs=True)
            for name, module in self.model.named_modules()
            if name
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    @property
    def first_bad(self) -> ModuleCall | None:
        """The first call with a non-finite output."""
        return next((call for call in self.seen if call.output.broken), None)

    @property
    def largest(self) -> ModuleCall | None:
        """The call with the largest finite element in its output."""
        return max(
            (call for call in self.seen if call.output.largest), key=lambda c: c.output.largest or 0.0, default=None
        )

    def _record(self, name: str) -> Any:
        def hook(module: torch.nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            self.seen.append(
                ModuleCall(name, type(module).__name__, tensor_state([args, kwargs]), tensor_state(output))
            )
            for tensor in _floats(output):
                if tensor.requires_grad:
                    tensor.register_hook(lambda gradient: self._gradient(name, gradient))

        return hook

    def _gradient(self, name: str, gradient: Tensor) -> None:
        if name not in self.broken_gradients and not torch.isfinite(gradient).all():
            self.broken_gradients.append(name)


def tensor_state(value: Any) -> TensorState:
    """The state of all floating-point tensors in a nested value."""
    tensors = [tensor.detach() for tensor in _floats(value)]
    numbers = sum(tensor.numel() for tensor in tensors)
    finite = [tensor[torch.isfinite(tensor)] for tensor in tensors]
    left = [float(tensor.abs().max()) for tensor in finite if tensor.numel()]
    return TensorState(numbers, numbers - sum(tensor.numel() for tensor in finite), max(left, default=None))


def describe_call(bad: ModuleCall) -> str:
    """One line about the first bad call; if its input is bad already, the parent's own code between modules is the cause."""
    line = f"{bad.module} ({bad.kind}): output {bad.output}; input {bad.input}"
    parent = bad.module.rpartition(".")[0]
    return line + (f" (computed in {parent or 'the model'} itself)" if bad.input.broken else "")


def as_json(seen: ModuleCall | None) -> dict[str, Any] | None:
    """A call as plain data for JSON."""
    return None if seen is None else asdict(seen)


def from_json(data: dict[str, Any]) -> ModuleCall:
    """A call from plain data."""
    return ModuleCall(data["module"], data["kind"], TensorState(**data["input"]), TensorState(**data["output"]))


def _floats(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, dict):
        for child in value.values():
            yield from _floats(child)
    elif isinstance(value, list | tuple):
        for child in value:
            yield from _floats(child)


def rerun(
    forward: Forward, batches: list[dict[str, Any]], states: list[dict[str, Tensor]], *, context: Any, backward: bool
) -> tuple[ForwardTrace, float, float]:
    """Run forward (and backward) of micro-batches again, with their original random states.

    Stops after the first batch with a non-finite output. Gradients are accumulated without normalization.

    Args:
        forward: The model, in the mode (train or eval) that it runs in.
        batches: Batches as ``loss_sum`` takes them.
        states: From ``random_state``, one per batch, or none (validation).
        context: Creates the context of the forward pass (autocast).
        backward: Whether to run the backward pass.

    Returns:
        The trace, the sum of the token losses in nats, and the (weighted) number of tokens.
    """
    nats, count = 0.0, 0
    with ForwardTrace(forward.model) as trace, torch.set_grad_enabled(backward):
        for number, batch in enumerate(batches):
            if number < len(states):
                set_random_state(states[number], forward.device)
            with context():
                total, tokens = forward.loss_sum(batch)
            nats, count = nats + float(total.detach()), count + tokens.item()
            if trace.first_bad:
                break
            if backward and tokens:
                total.backward()
    return trace, nats, count


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The random state of the CPU and of the device, from which dropout draws (a few kilobytes)."""
    state = {"cpu": torch.get_rng_state()}
    return state | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def set_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    """Restore a random state; on another type of device dropout draws differently."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
