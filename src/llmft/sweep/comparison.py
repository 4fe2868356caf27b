"""The name of a former callback, for configs that still hold it: the leaderboard of every sweep has its columns."""

from llmft.sweep.results import SweepFolder as Comparison

__all__ = ["Comparison"]
