"""Check a training config against the architecture of its model, without loading weights."""

import inspect
from collections.abc import Collection
from pathlib import Path
from typing import Any

from llmft.models import distillation
from llmft.models.backbone import load
from llmft.models.backbone.open import Backbone
from llmft.models.peft import lora, trainable
from llmft.utils.errors import UserError


def architecture_faults(cfg: Any, broken: Collection[str] = ()) -> list[str]:
    """Faults of a config that the architecture shows: budgets over its positions, LoRA targets without a match, no template.

    The model is built on the meta device, and only if its config is on this machine: a model that is not is checked once it
    is downloaded.

    Args:
        cfg: Config of a training.
        broken: Keys whose values are wrong already; checks that read them are skipped.
    """
    if any(
        key in broken or key.partition(".")[0] in broken for key in ("model.path", "model.family", "model.gguf_file")
    ):
        return []
    try:
        path = load.locate_cached(cfg.model)
        if path is None:
            return []
        backbone = Backbone.open(cfg, path=path)
        config = backbone.config
    except UserError as error:
        return [str(error)]
    checks = {
        ("data.max_prompt_tokens", "data.max_answer_tokens", "generation.max_new_tokens"): lambda: check_positions(
            config, cfg
        ),
        ("peft", "model.lora_targets"): lambda: _check_targets(backbone, cfg),
        ("data.batching", "model._target_"): lambda: _check_packing(backbone, cfg),
        ("prompt.name", "data.train_on"): lambda: _check_prompt(backbone, cfg),
        ("peft.distill_from",): lambda: _check_teacher(backbone, cfg),
    }
    faults = []
    for keys, check in checks.items():
        try:
            if not any(bad == key or bad.startswith(f"{key}.") for key in keys for bad in broken):
                check()
        except UserError as error:
            faults.append(str(error))
    return faults


def check_positions(config: Any, cfg: Any) -> None:
    """Refuse token budgets over the model's positions, which would end in an IndexError inside the model.

    Raises:
        UserError: A prompt with its answer, trained or generated, may be longer than the model's positions.
    """
    answers = {"data.max_answer_tokens": cfg.data.max_answer_tokens}
    answers["generation.max_new_tokens"] = cfg.generation.max_new_tokens
    samples = cfg.callbacks.get("samples")
    if samples and samples.get("number"):
        answers["callbacks.samples.max_new_tokens"] = samples.max_new_tokens
    key, answer = max(answers.items(), key=lambda item: item[1])
    positions, total = load.max_positions(config), cfg.data.max_prompt_tokens + answer
    if positions is not None and total > positions:
        parts = f"data.max_prompt_tokens={cfg.data.max_prompt_tokens} + {key}={answer}"
        raise UserError(f"{parts} = {total} tokens, but the model has {positions} positions; lower one of them")


def _check_targets(backbone: Backbone, cfg: Any) -> None:
    if not trainable.is_adapter(cfg.peft):
        return
    import torch

    with torch.device("meta"):
        model = backbone.family.auto_class.from_config(backbone.config)
    names = lora.targets(model, cfg.peft.targets, cfg.model.lora_targets)
    if cfg.peft.get("adapter"):
        lora.check_adapter(cfg.peft, names)


def _check_packing(backbone: Backbone, cfg: Any) -> None:
    """Packed examples are kept apart by position ids that restart (causal), or by masks if positions are relative (T5)."""
    config, auto_class = backbone.config, backbone.family.auto_class
    if cfg.data.batching != "packed" or type(config) not in auto_class._model_mapping:
        return
    kind = auto_class._model_mapping[type(config)]
    if cfg.model.family == "causal":
        can = "position_ids" in inspect.signature(kind.forward).parameters
    else:
        can = hasattr(config, "relative_attention_num_buckets")
    if not can:
        raise UserError(
            f"data.batching=packed: {kind.__name__} has no positions that could restart in each example; use tokens or grouped"
        )


def _check_prompt(backbone: Backbone, cfg: Any) -> None:
    if cfg.prompt.name == "chat" and Path(backbone.path).is_dir():
        _ = backbone.codec


def _check_teacher(backbone: Backbone, cfg: Any) -> None:
    if not cfg.peft.get("distill_from"):
        return
    model = distillation.config_of(cfg)
    path = load.locate_cached(model)
    if path and Path(backbone.path).is_dir():
        distillation.check_vocabulary(cfg, backbone.tokenizer, Backbone(model, path=path).tokenizer)
