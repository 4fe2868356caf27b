"""Before a training is resumed: whether its checkpoints are complete."""

from collections.abc import Mapping
from typing import Any

import torch

from llmft.config.schema.peft import Unfreeze
from llmft.models.optimizer import kept_state
from llmft.runs import checkpoint_check
from llmft.runs.checkpoint_check import DamagedCheckpoint, Expected
from llmft.training.build import Parts


def check_checkpoints(parts: Parts, state: Mapping[str, Any]) -> None:
    """Check the content of ``last.ckpt``, and ``best.ckpt`` where the end of the training may need it.

    Args:
        parts: Those of the training that resumes.
        state: The content of ``last.ckpt``.

    Raises:
        DamagedCheckpoint: One of them is damaged or missing; names the first fault, and the way out.
    """
    last, best = parts.run.checkpoints / "last.ckpt", parts.run.checkpoints / "best.ckpt"
    wanted = expected(parts)
    if fault := next(checkpoint_check.faults(state, wanted), None):
        raise DamagedCheckpoint(f"{last}: is damaged: {fault}; {checkpoint_check.way_out(last, wanted)}")
    best_step = state["callbacks"]["Checkpoints"]["best_step"]
    if best_step in (-1, state["global_step"]):  # none yet, or the same: it is linked again
        return
    if not best.is_file():
        raise DamagedCheckpoint(
            f"{best}: is missing, and step {best_step} was the best so far; {checkpoint_check.ANEW}"
        )
    weights = checkpoint_check.load_checked(best)["state_dict"]
    if fault := next(checkpoint_check.weight_faults(weights, wanted.weights), None):
        raise DamagedCheckpoint(f"{best}: is damaged: {fault}; {checkpoint_check.ANEW}")


def expected(parts: Parts) -> Expected:
    """What a checkpoint of this training holds."""
    module, trainer, data = parts.module, parts.trainer, parts.datamodule
    weights = {name: p for name, p in module.named_parameters() if name in module.trainable_names()}
    optimizer = module.optim([torch.nn.Parameter(torch.zeros(1))])
    schedule = module.schedule(optimizer).state_dict()
    callbacks = {callback.state_key: _state(callback) for callback in trainer.callbacks}  # pyright: ignore[reportAttributeAccessIssue]
    plugin = trainer.precision_plugin
    samples: dict[tuple[Any, ...], dict[str, Any]] = {}

    def moments(weight: torch.Tensor) -> dict[str, Any]:
        key = (*weight.shape, weight.dtype)
        if key not in samples:
            samples[key] = kept_state(module.optim, weight)
        return samples[key]

    return Expected(
        weights=weights,
        moments=moments,
        group={name: value for name, value in optimizer.param_groups[0].items() if name != "params"},
        schedule=schedule,
        callbacks={name: state for name, state in callbacks.items() if state},
        plugins={type(plugin).__qualname__: found} if (found := plugin.state_dict()) else {},
        ranks=trainer.world_size,
        batches=data.epoch_batches(),
        unfreezes=isinstance(parts.cfg.peft, Unfreeze),
    )


def _state(callback: Any) -> dict[str, Any]:
    """The state of a callback at step 0; of one from outside only its keys, whose values may change their kind."""
    state = callback.state_dict()
    ours = type(callback).__module__.partition(".")[0] in ("llmft", "lightning")
    return state if ours else dict.fromkeys(state)
