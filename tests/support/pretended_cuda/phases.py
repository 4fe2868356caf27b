"""Which part of a command runs: the loop over training batches, a validation, the generation of answers."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch

from tests.support.pretended_cuda.counts import COUNTS
from tests.support.pretended_cuda.tensor import PretendedTensor

_step_before = [0]  # Lightning's number, which goes on in a run that is resumed


def install() -> None:
    """Let the counts know from now on."""
    from lightning.pytorch.loops.evaluation_loop import _EvaluationLoop
    from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop

    from llmft.generation.decoder import Decoder
    from llmft.models.attention import kernels

    setattr(kernels, "type", _type)  # noqa: B010 (it is no name of the module yet)
    _during("train", _TrainingEpochLoop, "advance", before=_advances, after=_advanced)
    _during("validate", _EvaluationLoop, "run")
    _during("answer", Decoder, "run", before=_answers)


def _type(value: Any) -> type:
    """The chunked head is for a weight of no other class than ``Parameter``, which a pretended one stands for."""
    return torch.nn.Parameter if isinstance(value, PretendedTensor) else type(value)


def _advanced(loop: Any) -> None:
    COUNTS.step += loop.global_step > _step_before[0]


def _advances(loop: Any) -> None:
    _step_before[0] = loop.global_step


def _answers(decoder: Any) -> None:
    COUNTS.add("answers", str(decoder.model.device), outside="generation/")


def _during(phase: str, owner: Any, name: str, before: Callable[[Any], None] | None = None, after: Any = None) -> None:
    method = getattr(owner, name)

    @wraps(method)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        if before:
            before(self)
        with COUNTS.during(phase):
            result = method(self, *args, **kwargs)
        if after:
            after(self)
        return result

    setattr(owner, name, wrapped)
