"""``model=auto``: the layers that get LoRA matrices, found in the architecture and written into the config."""

from typing import Any

from llmft.models.backbone.open import Backbone
from llmft.models.peft import lora


def resolve_targets(cfg: Any) -> None:
    """Replace ``model.lora_targets=[auto]`` by names, in place, so that the run directory records them.

    Args:
        cfg: A checked training config.

    Raises:
        UserError: The model's config cannot be loaded.
    """
    if list(cfg.model.lora_targets) != ["auto"]:
        return
    import torch

    backbone = Backbone.open(cfg)
    config, auto_class = backbone.config, backbone.family.auto_class
    with torch.device("meta"):
        model = auto_class.from_config(config)
    cfg.model.lora_targets = lora.targets(model, "auto", ["auto"])
