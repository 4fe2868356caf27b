"""What of a backbone is trained: all of it, or LoRA matrices beside it."""

from typing import Any

from llmft.errors import UserError


def adapt(model: Any, peft: Any, auto_targets: list[str]) -> Any:
    """The model with exactly the weights trainable that the ``peft`` group asks for.

    Args:
        model: A transformers model.
        peft: The config of the peft group; ``method`` is ``none`` or ``lora``.
        auto_targets: The backbone's own choice of layers, for ``peft.targets=auto``.

    Raises:
        UserError: A name in ``peft.targets`` matches no layer.
    """
    if peft.method == "none":
        return model.requires_grad_(True)
    from peft import LoraConfig, get_peft_model
    from transformers.pytorch_utils import Conv1D

    names = targets(model, peft.targets, auto_targets)
    conv1d = any(isinstance(m, Conv1D) for name, m in model.named_modules() if name.rpartition(".")[2] in names)
    config = LoraConfig(
        r=peft.r,
        lora_alpha=peft.alpha,
        lora_dropout=peft.dropout,
        target_modules=names,
        task_type="SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM",
        fan_in_fan_out=conv1d,  # GPT-2 keeps its weights transposed
    )
    return get_peft_model(model, config).train()


def parameter_counts(model: Any) -> dict[str, int]:
    """Parameters in total and trainable, each shared one counted once."""
    parameters = list(model.parameters())
    return {
        "total": sum(p.numel() for p in parameters),
        "trainable": sum(p.numel() for p in parameters if p.requires_grad),
    }


def targets(model: Any, wanted: Any, auto_targets: list[str]) -> list[str]:
    """The names of the layers that get LoRA matrices.

    Raises:
        UserError: A name in ``wanted`` (``peft.targets``) or ``auto_targets`` (``model.lora_targets``) matches no layer.
    """
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    layers = {name.rpartition(".")[2] for name, m in model.named_modules() if isinstance(m, (Linear, Conv1D))}
    layers -= {"lm_head"}
    if wanted == "all-linear":
        return sorted(layers)
    names = list(auto_targets) if wanted == "auto" else [wanted] if isinstance(wanted, str) else list(wanted)
    missing = [name for name in names if name not in layers]
    if missing:
        key = "model.lora_targets" if wanted == "auto" else "peft.targets"
        raise UserError(f"{key}: {', '.join(missing)} match no layer of this model; it has {', '.join(sorted(layers))}")
    return names
