"""What a composed config must keep: the value of each key, and values that are fine alone against each other."""

from llmft.config.schema import callbacks, commands, data, evaluation, generation, model, output_paths, trainer
from llmft.config.schema.cross_field import TOGETHER, within
from llmft.config.schema.types import Rule

__all__ = ["RULES", "TOGETHER", "within"]

PARTS = (commands, output_paths, data, model, trainer, callbacks, evaluation, generation)
RULES: dict[str, Rule] = {key: rule for part in PARTS for key, rule in part.RULES.items()}
