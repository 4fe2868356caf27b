"""``model=auto``: the layers that get LoRA matrices, found in the architecture."""

from typing import TypeVar

from llmft.config.schema import TrainConfig
from llmft.models.backbone.open import Backbone
from llmft.models.peft import lora

C = TypeVar("C", bound=TrainConfig)


def with_lora_targets(cfg: C) -> C:
    """The config with names instead of ``model.lora_targets=[auto]``.

    Raises:
        UserError: The model's config cannot be loaded.
    """
    if cfg.model.lora_targets != ["auto"]:
        return cfg
    import torch

    backbone = Backbone.open(cfg)
    config, auto_class = backbone.config, backbone.family.auto_class
    with torch.device("meta"):
        model = auto_class.from_config(config)
    return cfg.replaced({"model.lora_targets": lora.targets(model, "auto", ["auto"])})
