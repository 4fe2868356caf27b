"""Refuse kernels asked for by key that the machine, the precision or the architecture of a training does not have."""

from collections.abc import Callable
from typing import Any

from llmft.config.schema import TrainConfig
from llmft.utils import flash, flex, liger, torch_compile
from llmft.utils.device import accelerator_of, runs_on_gpu
from llmft.utils.errors import UserError


def check_attention(config: Any, cfg: TrainConfig) -> None:
    """Refuse ``model.attention=flash`` and ``flex`` for an architecture that cannot attend with them.

    Raises:
        UserError: Names the reason.
    """
    if cfg.model.attention == "flash" and (why := flash.unfit(config)):
        raise UserError(
            f"model.attention=flash: {type(config).__name__} cannot attend with FlashAttention: {why}; use sdpa"
        )
    if cfg.model.attention == "flex" and (why := flex.unfit(config)):
        raise UserError(f"model.attention=flex: {type(config).__name__} cannot train with it: {why}; or use sdpa")


def check_flash(cfg: TrainConfig) -> None:
    """Refuse ``model.attention=flash`` on a machine, or in a precision, that has no kernel for it.

    Args:
        cfg: A training config, its ``auto`` values resolved.

    Raises:
        UserError: Names the reason and the way out.
    """
    if cfg.model.attention != "flash":
        return
    _check_machine(cfg, "runs on a CUDA GPU, and this training on a CPU", flash.unavailable)
    if cfg.model.dtype == "float32" and cfg.trainer.precision not in ("bf16-mixed", "16-mixed"):
        raise UserError(
            "model.attention=flash: computes in half precision, and this training in float32 "
            f"(trainer.precision={cfg.trainer.precision}); use trainer.precision=bf16-mixed, or model.attention=auto"
        )


def check_flex(config: Any, cfg: TrainConfig) -> None:
    """Refuse ``model.attention=flex`` on a machine that cannot train with it, and for an architecture that cannot.

    Args:
        config: The transformers config.
        cfg: A training config, its ``auto`` values resolved.

    Raises:
        UserError: Names the reason and the way out.
    """
    if cfg.model.attention != "flex":
        return
    on_a_cpu = "torch's flex attention has no backward pass on a CPU, where this training runs"
    _check_machine(cfg, on_a_cpu, flex.unavailable)
    check_attention(config, cfg)


def _check_machine(cfg: TrainConfig, on_a_cpu: str, unavailable: Callable[[], str | None]) -> None:
    """Refuse ``model.attention`` for a training on a CPU, with this reason, and for a GPU that cannot run it."""
    if why := unavailable() if runs_on_gpu(cfg.trainer) else on_a_cpu:
        raise UserError(f"model.attention={cfg.model.attention}: {why}; use model.attention=auto")


def check_liger(cfg: TrainConfig) -> None:
    """Refuse ``model.liger=true`` on a machine that does not run Liger's kernels.

    Args:
        cfg: A training config, its ``auto`` values resolved.

    Raises:
        UserError: Names the reason and the way out.
    """
    if cfg.model.liger is not True:
        return
    if not runs_on_gpu(cfg.trainer):
        raise UserError("model.liger=true: runs on a CUDA GPU, and this training does not; use model.liger=auto")
    if why := liger.unavailable():
        raise UserError(f"model.liger=true: {why}; or use model.liger=auto")


def check_compile(cfg: TrainConfig) -> None:
    """Refuse ``model.compile=true`` on a machine that lacks what torch.compile calls.

    Args:
        cfg: A training config.

    Raises:
        UserError: Names the reason and the way out.
    """
    if cfg.model.compile and (why := torch_compile.unavailable(accelerator_of(cfg.trainer))):
        raise UserError(f"model.compile=true: {why}; or use model.compile=false")
