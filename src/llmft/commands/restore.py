"""``restore``: unpack an archive of ``export``."""

from omegaconf import DictConfig

from llmft.config.paths import parse_size
from llmft.config.schema import RestoreConfig
from llmft.config.validate import check
from llmft.export.unzip import ArchiveLimits, restore
from llmft.utils.console import Console
from llmft.utils.errors import UserError
from llmft.utils.files import new_folder
from llmft.utils.logging import log_to
from llmft.utils.paths import user_path


def main(cfg: DictConfig) -> None:
    """Unpack ``archive`` into ``to``."""
    log_to(None)
    config = check(cfg, RestoreConfig)
    if config.archive is None or config.to is None:
        raise UserError("restore: pass archive=FILE and to=FOLDER")
    file = user_path(config.archive)
    if not file.is_file():
        raise UserError(f"archive={config.archive}: no such file")
    limits = ArchiveLimits(config.restore.max_files, parse_size(config.restore.max_size), config.restore.max_ratio)
    names = restore(file, config.archive, new_folder("to", config.to), limits)
    Console(highlight=False, markup=False, emoji=False, soft_wrap=True).print(
        f"{len(names)} files, all checksums match: {config.to}"
    )
