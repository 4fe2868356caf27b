"""A model's config without its weights -> what of a run's config the model cannot do."""

import inspect
from collections.abc import Collection
from pathlib import Path
from typing import Any

from llmft.models.backbone import load
from llmft.models.peft import lora, trainable
from llmft.utils.errors import UserError


def architecture_faults(cfg: Any, broken: Collection[str] = ()) -> list[str]:
    """Faults that show in the model's architecture: budgets over its positions, LoRA targets that match nothing, no template.

    The model is built without weights (on torch's meta device), and only where its config is on this machine: what is not
    here yet is checked after it was fetched.

    Args:
        cfg: Of a training.
        broken: Keys whose values are wrong already; checks that read them are left out.
    """
    from hydra.utils import get_class

    if any(
        key in broken or key.partition(".")[0] in broken for key in ("model.path", "model.family", "model.gguf_file")
    ):
        return []
    auto_class = get_class(cfg.model._target_).auto_class
    try:
        place = load.at_hand(cfg.model)
        if place is None:
            return []
        config = load.load_config(place, cfg.model)
    except UserError as error:
        return [str(error)]
    checks = {
        ("data.max_prompt_tokens", "data.max_answer_tokens", "generation.max_new_tokens"): lambda: check_positions(
            config, cfg
        ),
        ("peft", "model.lora_targets"): lambda: _check_targets(config, cfg, auto_class),
        ("data.batching", "model._target_"): lambda: _check_packing(config, cfg, auto_class),
        ("prompt.name", "data.train_on"): lambda: _check_prompt(place, cfg),
        ("peft.distill_from",): lambda: _check_teacher(place, cfg),
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
    """Refuse token budgets that the model has no positions for; they would be an IndexError deep inside it.

    Raises:
        UserError: A prompt with its answer, trained or generated, may need more than the model's positions.
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


def _check_targets(config: Any, cfg: Any, auto_class: Any) -> None:
    if not trainable.is_adapter(cfg.peft):
        return
    import torch

    with torch.device("meta"):
        model = auto_class.from_config(config)
    names = lora.targets(model, cfg.peft.targets, cfg.model.lora_targets)
    if cfg.peft.get("adapter"):
        lora.check_adapter(cfg.peft, names)


def _check_packing(config: Any, cfg: Any, auto_class: Any) -> None:
    """Rows of a line are kept apart by positions that start again (causal), or by masks alone where positions are relative."""
    if cfg.data.batching != "packed" or type(config) not in auto_class._model_mapping:
        return
    kind = auto_class._model_mapping[type(config)]
    if cfg.model.family == "causal":
        can = "position_ids" in inspect.signature(kind.forward).parameters
    else:
        can = hasattr(config, "relative_attention_num_buckets")
    if not can:
        raise UserError(
            f"data.batching=packed: {kind.__name__} has no positions that could start again in each row; use tokens or grouped"
        )


def _check_prompt(place: str, cfg: Any) -> None:
    from llmft.data.tokenization.build import codec_of

    if cfg.prompt.name == "chat" and Path(place).is_dir():
        codec_of(cfg, load.load_tokenizer(place, cfg.model))


def _check_teacher(place: str, cfg: Any) -> None:
    from llmft.models import distillation

    if not cfg.peft.get("distill_from"):
        return
    own = distillation.config_of(cfg)
    theirs = load.at_hand(own)
    if theirs and Path(place).is_dir():
        tokenizers = (load.load_tokenizer(p, c) for p, c in ((place, cfg.model), (theirs, own)))
        distillation.check_vocabulary(cfg, *tokenizers)
