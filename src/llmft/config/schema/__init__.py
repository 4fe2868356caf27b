"""What a composed config must keep: the value of each key, and values that are fine alone against each other."""

from llmft.rules import answers, callbacks, commands, data, folders, model, scores, training
from llmft.rules.between import TOGETHER, within
from llmft.rules.kinds import Rule

__all__ = ["RULES", "TOGETHER", "within"]

PARTS = (commands, folders, data, model, training, callbacks, scores, answers)
RULES: dict[str, Rule] = {key: rule for part in PARTS for key, rule in part.RULES.items()}
