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
    check(cfg, RestoreConfig)
    if cfg.archive is None or cfg.to is None:
        raise UserError("restore: pass archive=FILE and to=FOLDER")
    file = user_path(cfg.archive)
    if not file.is_file():
        raise UserError(f"archive={cfg.archive}: no such file")
    limits = ArchiveLimits(cfg.restore.max_files, parse_size(cfg.restore.max_size), cfg.restore.max_ratio)
    names = restore(file, cfg.archive, new_folder("to", cfg.to), limits)
    Console(highlight=False, markup=False, emoji=False, soft_wrap=True).print(
        f"{len(names)} files, all checksums match: {cfg.to}"
    )
