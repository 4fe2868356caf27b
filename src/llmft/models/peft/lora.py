"""LoRA matrices next to a model's layers: new ones, or those of an adapter that is trained further."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmft.config.schema.peft import Lora
from llmft.models.backbone import new_tokens, quantization, untrusted
from llmft.models.peft.lora_autocast import follow_autocast
from llmft.models.peft.lora_recompute import recompute_lora_inputs
from llmft.utils.errors import UserError
from llmft.utils.paths import user_path
from llmft.utils.shell import argument
from llmft.utils.text import one_line

log = logging.getLogger(__name__)

# Settings that an adapter to continue from must share with the config: name in peft, name in the config.
SHARED = {"r": "r", "lora_alpha": "alpha", "use_dora": "dora", "use_rslora": "rslora"}


def attach(model: Any, peft: Lora, auto_targets: list[str]) -> Any:
    """Freeze a model and add trainable LoRA matrices to its layers.

    Raises:
        UserError: A name in ``peft.targets`` matches no layer, or ``peft.adapter`` does not fit.
    """
    with quantization.deferred_compile():
        from peft import LoraConfig, get_peft_model
    from transformers.pytorch_utils import Conv1D

    names = targets(model, peft.targets, auto_targets)
    if experts := sum(p.numel() for p in model.parameters() if p.ndim == 3):  # experts of a layer are one parameter
        log.info(
            "peft: LoRA adapts %s; %.1fM weights of experts and their routers are frozen",
            ", ".join(names),
            experts / 1e6,
        )
    if peft.adapter:
        check_adapter(peft, names)
    conv1d = any(isinstance(m, Conv1D) for name, m in model.named_modules() if name.rpartition(".")[2] in names)
    config = LoraConfig(
        r=peft.r,
        lora_alpha=peft.alpha,  # pyright: ignore[reportArgumentType] (peft takes any number)
        lora_dropout=peft.dropout,
        target_modules=names,
        task_type="SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM",
        fan_in_fan_out=conv1d,  # GPT-2 keeps its weights transposed
        use_dora=peft.dora,
        use_rslora=peft.rslora,
        trainable_token_indices=new_tokens.trained_rows(model),
    )
    adapted = get_peft_model(model, config).train()
    if peft.adapter:
        _load(adapted, adapter_folder(peft.adapter))
    recompute_lora_inputs(adapted)
    follow_autocast(adapted)
    return adapted


def adapter_folder(path: str) -> Path:
    """The folder of an adapter, given as a run or as that folder.

    Raises:
        UserError: There is none.
    """
    given = user_path(path)
    for folder in (given, given / "model"):
        if (folder / "adapter_config.json").is_file():
            return folder
    raise UserError(f"peft.adapter={path}: no adapter there (a run's folder, or one with adapter_config.json in it)")


def check_adapter(peft: Lora, names: list[str]) -> None:
    """Refuse an adapter to continue from whose settings differ from the config's.

    Args:
        peft: The config of the peft group.
        names: The layers that get LoRA matrices by the config.

    Raises:
        UserError: Rank, scale or layers differ; the message has the keys that fit.
    """
    try:
        found = untrusted.adapter_config(adapter_folder(str(peft.adapter)))
    except UserError as error:
        raise UserError(f"peft.adapter={peft.adapter}: training cannot continue from it ({error})") from None
    settings = {name: getattr(found, name) for name in SHARED}
    different = [
        argument(f"peft.{key}", settings[name]) for name, key in SHARED.items() if getattr(peft, key) != settings[name]
    ]
    layers = set(found.target_modules)
    if layers != set(names):
        different.append(argument("peft.targets", sorted(layers)))
    if different:
        raise UserError(
            f"peft.adapter={peft.adapter}: was trained with other settings; to continue from it: {' '.join(different)}"
        )


def targets(model: Any, wanted: str | Sequence[str], auto_targets: list[str]) -> list[str]:
    """The names of the layers that get LoRA matrices.

    Raises:
        UserError: A name in ``wanted`` (``peft.targets``) or ``auto_targets`` (``model.lora_targets``) matches no layer.
    """
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()  # T5Gemma's is lm_head.out_proj
    linear = (name for name, m in model.named_modules() if isinstance(m, (Linear, Conv1D)) and m is not head)
    layers = {name.rpartition(".")[2] for name in linear} - {"lm_head"}
    if wanted == "all-linear":
        return sorted(layers)
    if wanted == "auto" and list(auto_targets) == ["auto"]:
        return attention_layers(model) or sorted(layers)
    names = list(auto_targets) if wanted == "auto" else [wanted] if isinstance(wanted, str) else list(wanted)
    missing = [name for name in names if name not in layers]
    if "lm_head" in missing:
        raise UserError(
            "peft.targets: lm_head is a layer of this model, but LoRA of the head is not supported; peft=head trains the head "
            f"itself, and LoRA can have {', '.join(sorted(layers))}"
        )
    if missing:
        key = "model.lora_targets" if wanted == "auto" else "peft.targets"
        raise UserError(f"{key}: {', '.join(missing)} match no layer of this model; it has {', '.join(sorted(layers))}")
    return names


def attention_layers(model: Any) -> list[str]:
    """The names of the linear layers that only occur in attention modules, for ``model=auto``; none without attention (Mamba)."""
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    inside, outside = set(), set()
    for path, module in model.named_modules():
        if isinstance(module, (Linear, Conv1D)):
            parent, _, name = path.rpartition(".")
            attends = any(word in parent.rpartition(".")[2].lower() for word in ("attn", "attention"))
            (inside if attends else outside).add(name)
    return sorted(inside - outside)


def _load(model: Any, folder: Path) -> None:
    """Load the weights of an adapter into the model's LoRA matrices; names must match exactly.

    Raises:
        UserError: Names or shapes differ, or the file is broken.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    try:
        weights = untrusted.adapter_weights(folder)
        wanted = get_peft_model_state_dict(model)
        missing, unknown = sorted(wanted.keys() - weights.keys())[:3], sorted(weights.keys() - wanted.keys())[:3]
        if missing or unknown:
            raise ValueError(f"of another model: missing {missing}, unknown {unknown}")
        set_peft_model_state_dict(model, weights)
    except (UserError, ValueError, RuntimeError) as error:
        raise UserError(f"peft.adapter={folder}: cannot be used ({one_line(error)})") from None
