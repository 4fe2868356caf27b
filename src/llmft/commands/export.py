"""``export``: write a run's model for transformers and peft, verified."""

from omegaconf import DictConfig

from llmft.config.schema import ExportConfig
from llmft.config.validate import check
from llmft.export.export import export
from llmft.runs.open import open_run
from llmft.utils.console import Console
from llmft.utils.errors import UserError
from llmft.utils.logging import log_to, quiet


def main(cfg: DictConfig) -> None:
    """Export ``run`` to ``to``, ``hub`` or both."""
    quiet()
    log_to(None)
    config = check(cfg, ExportConfig)
    if config.run is None:
        raise UserError("export: pass run=RUN")
    folder, trained = open_run(config.run)
    done = export(folder, trained, config.to, config)
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    console.print(
        f"verified: the largest difference of a logit is {done.difference:.3g} (tolerance {config.tolerance:g})"
    )
    for target in filter(None, (done.path, done.url)):
        console.print(f"{config.form}: {target}")
