"""``export``: write a run's model for other tools, checked in their runtimes."""

from omegaconf import DictConfig

from llmft.config.schema import ExportConfig
from llmft.config.validate import check
from llmft.export import passport_file
from llmft.export.export import export
from llmft.export.result import Exported, FailedExportError
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
    try:
        _show(export(folder, trained, config.to, config))
    except FailedExportError as error:
        _show(error.done)
        raise


def _show(done: Exported) -> None:
    console = Console(highlight=False, markup=False, emoji=False)
    for one in done.forms:
        passport_file.show(one.passport, console)
        for target in filter(None, (one.path, one.url)):
            console.print(f"{one.passport.form}: {target}", soft_wrap=True)
