"""Schema of the config: valid values of each key, and cross-field rules."""

from llmft.config.schema import callbacks, commands, data, evaluation, generation, model, output_paths, trainer
from llmft.config.schema.cross_field import CROSS_FIELD_RULES, overlaps
from llmft.config.schema.types import Rule

__all__ = ["CROSS_FIELD_RULES", "RULES", "overlaps"]

PARTS = (commands, output_paths, data, model, trainer, callbacks, evaluation, generation)
RULES: dict[str, Rule] = {key: rule for part in PARTS for key, rule in part.RULES.items()}
