"""``report``: a run as one HTML page, or a leaderboard of many runs."""

from omegaconf import DictConfig

from llmft import session
from llmft.check import check
from llmft.config import user_path
from llmft.errors import UserError
from llmft.terminal import Console


def main(cfg: DictConfig) -> None:
    """Write the page of ``run``, or the leaderboard of ``runs``."""
    session.log_to(None)
    check(cfg)
    if (cfg.run is None) == (cfg.runs is None):
        raise UserError("report: pass either run=RUN or runs=DIR")
    console = Console(highlight=False, markup=False, soft_wrap=True)
    if cfg.run is not None:
        from llmft.report import page

        console.print(f"report: {page.write(user_path(cfg.run), cfg.report)}")
    else:
        from llmft.report import leaderboard

        folder = user_path(cfg.runs)
        console.print(leaderboard.write(folder), end="")
        console.print(f"leaderboard: {folder / 'leaderboard.html'}")
