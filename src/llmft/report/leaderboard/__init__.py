"""Rank the runs below a folder: ``leaderboard.md``, ``.csv``, ``.html`` and ``.png``."""

from llmft.report.leaderboard.write import write_leaderboard

__all__ = ["write_leaderboard"]
