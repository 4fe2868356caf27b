"""``export``: a run's model as others load it, verified."""

from omegaconf import DictConfig

from llmft import session
from llmft.api import load_run
from llmft.check import check
from llmft.errors import UserError
from llmft.terminal import Console


def main(cfg: DictConfig) -> None:
    """Export ``run`` to ``to``, ``hub`` or both."""
    session.quiet()
    session.log_to(None)
    check(cfg)
    if cfg.run is None:
        raise UserError("export: pass run=RUN")
    keys = ("form", "shard_size", "tolerance", "zip", "hub", "private")
    done = load_run(cfg.run).export(cfg.to, **{key: cfg[key] for key in keys})
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    console.print(
        f"loaded again: the largest difference of a logit is {done.difference:.3g} (tolerance {cfg.tolerance:g})"
    )
    for place in filter(None, (done.path, done.url)):
        console.print(f"{cfg.form}: {place}")
