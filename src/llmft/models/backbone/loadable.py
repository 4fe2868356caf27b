"""Whether a model can be loaded for training or answering: its family, and that its weights are not quantized already."""

from typing import Any

from llmft.config.schema.model import Model
from llmft.utils.errors import UserError

OTHER = {"causal": "seq2seq", "seq2seq": "causal"}
# Methods of published models that transformers dequantizes as it loads them.
DEQUANTIZED = ("mxfp4", "fp8")


def check_config(config: Any, path: str, cfg: Model, *, known: bool) -> None:
    """Refuse a model of another family, or with quantized weights; the message has the way out.

    Args:
        config: The transformers config of the model.
        path: Folder or Hub id.
        cfg: The config of the model group.
        known: Whether the auto class of the family has a model class for this config.

    Raises:
        UserError: It is of the other family, of none, or quantized.
    """
    kind = f"model.path={path}: its config.json says model_type={getattr(config, 'model_type', None)!r:.60}"
    family = "seq2seq" if getattr(config, "is_encoder_decoder", False) else "causal"
    if family != cfg.family:
        raise UserError(
            f"{kind}, a {family} model, and model={cfg.name} loads {OTHER[family]} models; "
            "pass model=auto, which takes the family from config.json"
        )
    if not known and not cfg.trust_remote_code:
        raise UserError(
            f"{kind}, of which transformers has no {family} language model; pass a model that generates text"
        )
    check_not_quantized(config, path)


def check_not_quantized(config: Any, path: str) -> None:
    """Refuse a model whose weights were saved in fewer bits.

    Raises:
        UserError: Its config has a ``quantization_config`` of bitsandbytes, GPTQ, AWQ, ...
    """
    settings = getattr(config, "quantization_config", None)
    if not settings:
        return
    method = settings.get("quant_method") if isinstance(settings, dict) else getattr(settings, "quant_method", None)
    method = str(getattr(method, "value", method))
    if method not in DEQUANTIZED:
        raise UserError(
            f"model.path={path}: its weights are quantized already (quantization_config in config.json: {method:.60}), and are "
            "not trained or merged from; pass the model that they were made of, with peft=qlora to load that in 4 bits"
        )
