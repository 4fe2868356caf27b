"""``report``: HTML report of a run, or a leaderboard of many runs."""

from omegaconf import DictConfig

from llmft.config.schema import ReportConfig
from llmft.config.validate import check
from llmft.utils.console import Console
from llmft.utils.errors import UserError
from llmft.utils.logging import log_to
from llmft.utils.paths import user_path


def main(cfg: DictConfig) -> None:
    """Write the report of ``run``, or the leaderboard of ``runs``."""
    log_to(None)
    config = check(cfg, ReportConfig)
    if (config.run is None) == (config.runs is None):
        raise UserError("report: pass either run=RUN or runs=DIR")
    console = Console(highlight=False, markup=False, soft_wrap=True)
    if config.run is not None:
        from llmft.report.html import write_report

        console.print(f"report: {write_report(user_path(config.run), config.report)}")
    else:
        from llmft.report import leaderboard, learning_curve

        folder = user_path(str(config.runs))
        board = leaderboard.write_leaderboard(folder)
        console.print(board.text, end="")
        for line in [
            *learning_curve.write_learning_curves(folder, board.runs),
            f"leaderboard: {folder / 'leaderboard.html'}",
        ]:
            console.print(line)
