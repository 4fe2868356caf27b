"""Check a training config against the architecture of its model, without loading weights."""

import inspect
import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any

from llmft.config.schema import TrainConfig
from llmft.config.schema.callbacks import Samples
from llmft.config.schema.peft import Lora
from llmft.models import distillation
from llmft.models.attention.restart_positions import position_modules
from llmft.models.backbone import load, locate
from llmft.models.backbone.open import Backbone
from llmft.models.kernel_check import check_attention, check_compile, check_flash, check_flex, check_liger
from llmft.models.peft import lora
from llmft.utils import flash
from llmft.utils.errors import UserError
from llmft.utils.shell import arguments

log = logging.getLogger(__name__)

NO_RESTART = "has no positions that could restart in each example"


def architecture_faults(cfg: TrainConfig, broken: Collection[str] = ()) -> list[str]:
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
        path = locate.locate_cached(cfg.model)
        if path is None:
            return []
        backbone = Backbone.open(cfg, path=path)
        config = backbone.config
    except UserError as error:
        return [str(error)]
    checks = {
        ("model",): lambda: check_architecture(config),
        ("trainer.precision", "peft.compute_dtype"): lambda: check_precision(config, cfg),
        ("data.max_prompt_tokens", "data.max_answer_tokens", "generation.max_new_tokens"): lambda: check_positions(
            config, cfg
        ),
        ("model.attention",): lambda: check_attention(config, cfg),
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


def check_config(config: Any, cfg: TrainConfig) -> None:
    """Check what the model's transformers config shows: positions, precision, and whether llmft trains this architecture.

    Raises:
        UserError: As the checks.
    """
    check_architecture(config)
    check_precision(config, cfg)
    check_positions(config, cfg)
    check_flash(cfg)
    check_flex(config, cfg)
    if cfg.model.attention == "flash" and (why := flash.unfit(config)):  # auto cannot look into a GGUF file
        log.warning("model.attention=flash: not for %s, %s; batches are padded", type(config).__name__, why)
    check_liger(cfg)
    check_compile(cfg)


def check_architecture(config: Any) -> None:
    """Refuse weights without a backward pass, and encoder-decoders whose loss is not that of one example and its next tokens.

    Raises:
        UserError: MXFP4 or FP8 weights (gpt-oss as published); ProphetNet predicts several tokens ahead; experts with a
            capacity (Switch Transformers, NLLB-MoE) drop tokens depending on the other examples of a batch.
    """
    quantized = getattr(config, "quantization_config", None) or {}
    method = str(quantized.get("quant_method") if isinstance(quantized, dict) else quantized.quant_method)
    if method in ("mxfp4", "fp8"):
        raise UserError(
            f"model: its weights are in {method.upper()}, whose kernels have no backward pass; load it once with transformers "
            "(quantization_config=Mxfp4Config(dequantize=True) for gpt-oss), save it, and pass model.path=FOLDER"
        )
    if not getattr(config, "is_encoder_decoder", False):
        return
    if hasattr(config, "ngram"):
        raise UserError(
            f"model: {type(config).__name__} is trained to predict {config.ngram} tokens ahead, with a loss of its own that "
            "llmft does not compute; use BART or Pegasus"
        )
    if hasattr(config, "expert_capacity"):
        raise UserError(
            f"model: the experts of {type(config).__name__} have a capacity: which tokens they drop depends on the other "
            "examples of the batch, and so does the loss; use a model without experts (T5, NLLB-200 distilled)"
        )


def check_precision(config: Any, cfg: TrainConfig) -> None:
    """Refuse float16 for T5 and its relatives: a feed-forward layer reaches 66,246, float16 65,504 (transformers #5651).

    Raises:
        UserError: The model overflows in this precision.
    """
    if not is_t5_like(config):
        return
    if cfg.trainer.precision == "16-mixed":
        raise UserError("trainer.precision=16-mixed: T5 overflows in float16; use bf16-mixed or 32-true")
    if cfg.peft.quantise and cfg.peft.select("compute_dtype") == "float16":
        raise UserError("peft.compute_dtype=float16: T5 overflows in float16; use bfloat16 or float32")


def is_t5_like(config: Any) -> bool:
    """Whether a config is of T5 or a relative (mT5, UMT5, ByT5, LongT5): an encoder-decoder with a relative attention bias."""
    return getattr(config, "is_encoder_decoder", False) and hasattr(config, "relative_attention_num_buckets")


def check_positions(config: Any, cfg: TrainConfig) -> None:
    """Refuse token budgets over the model's positions, which would end in an IndexError inside the model.

    Raises:
        UserError: A prompt with its answer, trained or generated, may be longer than the model's positions; of an
            encoder-decoder, one of the two.
    """
    positions, prompt = load.max_positions(config), cfg.data.max_prompt_tokens
    answers = _answer_budgets(cfg)
    totals = {key: load.needed_positions(config, prompt, answer) for key, answer in answers.items()}
    over = [key for key in answers if positions is not None and totals[key] > positions]
    if not over or positions is None:
        return
    if config.is_encoder_decoder:
        parts = {"data.max_prompt_tokens": (prompt, "encoder")} | {key: (answers[key], "decoder") for key in answers}
        faults = [f"{name}={size}: the model's {side} has {positions} positions" for name, (size, side) in parts.items()
                  if size > positions]  # fmt: skip
        raise UserError(f"{'; '.join(faults)}; lower {'it' if len(faults) == 1 else 'them'}")
    sums = [f"+ {key}={answers[key]} = {totals[key]} tokens" for key in over]
    shorter = min(prompt, positions // 2)
    lower = {"data.max_prompt_tokens": shorter} if shorter < prompt else {}
    lower |= {key: positions - shorter for key in over if answers[key] > positions - shorter}
    raise UserError(
        f"data.max_prompt_tokens={prompt} {', '.join(sums)}, but the model has {positions} positions; "
        f"lower them: {arguments(lower.items())}"
    )


def _answer_budgets(cfg: TrainConfig) -> dict[str, int]:
    """Max tokens of answers by their keys: of training, and of what is generated at its end and during it."""
    budgets = {"data.max_answer_tokens": cfg.data.max_answer_tokens}
    if cfg.questions or cfg.evaluate.rows != 0 or cfg.evaluate.in_training:
        budgets["generation.max_new_tokens"] = cfg.generation.max_new_tokens
    samples = cfg.callback(Samples)
    if samples and samples.number:
        budgets["callbacks.samples.max_new_tokens"] = samples.max_new_tokens
    return budgets


def _check_targets(backbone: Backbone, cfg: TrainConfig) -> None:
    if not isinstance(cfg.peft, Lora):
        return
    import torch

    with torch.device("meta"):
        model = backbone.family.auto_class.from_config(backbone.config)
    names = lora.targets(model, cfg.peft.targets, cfg.model.lora_targets)
    if cfg.peft.adapter:
        lora.check_adapter(cfg.peft, names)


def _check_packing(backbone: Backbone, cfg: TrainConfig) -> None:
    kind = load.model_class(backbone.config, backbone.family.auto_class)
    if cfg.data.batching != "packed" or kind is None:
        return
    if cfg.model.family == "causal":
        why = None if "position_ids" in inspect.signature(kind.forward).parameters else NO_RESTART
    else:
        why = _keeps_examples_together(backbone.config, kind)
    if why:
        raise UserError(f"data.batching=packed: {kind.__name__} {why}; use tokens or grouped")


def _keeps_examples_together(config: Any, kind: Any) -> str | None:
    """Why an encoder-decoder cannot be packed: it takes no mask per example, or its positions cannot restart."""
    if hasattr(config, "encoder_attention_type") or hasattr(config, "attention_window"):  # LongT5, LED
        return "attends in blocks of tokens, which no mask keeps apart by example"
    if hasattr(config, "relative_attention_num_buckets"):
        return None
    import torch

    with torch.device("meta"):
        return None if position_modules(kind(config)) else NO_RESTART


def _check_prompt(backbone: Backbone, cfg: TrainConfig) -> None:
    if cfg.prompt.name == "chat" and Path(backbone.path).is_dir():
        _ = backbone.codec


def _check_teacher(backbone: Backbone, cfg: TrainConfig) -> None:
    if not cfg.peft.distill_from:
        return
    model = distillation.config_of(cfg)
    path = locate.locate_cached(model)
    if path and Path(backbone.path).is_dir():
        distillation.check_vocabulary(cfg, backbone.tokenizer, Backbone(model, path=path).tokenizer)
