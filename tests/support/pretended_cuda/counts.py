"""What the pretended device counts, by who asked: waits of the host, copies, attention, matrix products, answers."""

import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Literal, NamedTuple

import llmft

HERE = str(Path(__file__).parent)
LLMFT = str(Path(str(llmft.__file__)).parent)
# Functions of these are no place: that is the function of llmft or Lightning that called them.
CALLED = ("torch/", "transformers/", "peft/", "python/")

Kind = Literal["sync", "copy", "attention", "product", "mismatch", "not deterministic", "answers"]


class Event(NamedTuple):
    """Something that the device was asked to do.

    Attributes:
        kind: ``sync``: the host waits for the device; ``copy``: between the two, without waiting; ``attention``: a call of
            ``scaled_dot_product_attention``; ``product``: a matrix product; ``mismatch``: tensors of two devices in one operation;
            ``not deterministic``: an operation that CUDA refuses under ``use_deterministic_algorithms(True)``, while that was on
            or warned; ``answers``: a batch of answers was generated.
        what: ``item``, ``copy to device``, ``bfloat16, causal, no mask``, ``mm bfloat16``, or the device of the answers.
        place: ``models/loss.py:TokenLoss.add`` of llmft, or ``lightning/...``; ``backward of Name`` in a backward pass.
        line: Of ``place``; 0 in a backward pass.
        inner: The innermost function: ``torch/nn/utils/clip_grad.py:_get_total_norm``.
        phase: ``train`` (the loop over training batches), ``validate``, ``answer`` or ``other``.
        step: Optimizer steps that were done before, in this process.
    """

    kind: Kind
    what: str
    place: str
    line: int
    inner: str
    phase: str
    step: int


@dataclass
class Counts:
    """How often each event happened since the last ``reset``.

    Attributes:
        events: Events and their numbers.
        operations: Device operations (about one kernel each) by phase and step.
        step: Optimizer steps that were done in this process.
        phase: The running phase.
    """

    events: Counter[Event] = field(default_factory=Counter)
    operations: Counter[tuple[str, int]] = field(default_factory=Counter)
    step: int = 0
    phase: str = "other"

    def reset(self) -> None:
        """Forget everything."""
        self.events.clear()
        self.operations.clear()
        self.step = 0

    def add(self, kind: Kind, what: str, *, outside: str = "") -> None:
        """Count an event of the function that runs now.

        Args:
            kind: Of the event.
            what: Of the event.
            outside: A folder of llmft whose functions are not the place (``generation/``), but who called them.
        """
        self.events[Event(kind, what, *_where(outside), self.phase, self.step)] += 1

    def operation(self) -> None:
        """Count a device operation."""
        self.operations[self.phase, self.step] += 1

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Count what happens inside as of this phase."""
        before, self.phase = self.phase, phase
        try:
            yield
        finally:
            self.phase = before

    def as_dict(self) -> dict[str, Any]:
        """All of it in JSON's types: ``events`` with their ``number``, ``operations``, ``steps``."""
        events = [{**event._asdict(), "number": number} for event, number in self.events.items()]
        operations = [{"phase": phase, "step": step, "number": n} for (phase, step), n in self.operations.items()]
        return {"events": events, "operations": operations, "steps": self.step}


COUNTS = Counts()


def _where(outside: str) -> tuple[str, int, str]:
    """Place and line that run now, and the innermost function."""
    inner = ""
    for frame in _frames():
        name = _name(frame.f_code)
        if not name:
            continue
        inner = inner or name
        if not name.startswith(CALLED) and not (outside and name.startswith(outside)):
            return name, frame.f_lineno, inner
    return _node() or "?", 0, inner or "?"


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)
    while frame:
        yield frame
        frame = frame.f_back


def _node() -> str:
    """The running node of a backward pass, which has a thread of its own without Python functions."""
    import torch

    if threading.current_thread() is threading.main_thread():
        return ""
    node = torch._C._current_autograd_node()
    return f"backward of {node.name()}" if node else ""


@cache
def _name(code: CodeType) -> str:
    """``file:function``: relative to llmft or to the installed packages; empty for this package and for Python's own."""
    file = code.co_filename
    if file.startswith((HERE, "<")) or "/torch/_dynamo/" in file:
        return ""
    for root in (f"{LLMFT}/", "/site-packages/"):
        if root in file:
            return f"{file.partition(root)[2]}:{code.co_qualname}"
    return f"python/{Path(file).name}:{code.co_qualname}"
