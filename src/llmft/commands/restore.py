"""``restore``: an archive of ``export`` back to a folder."""

from omegaconf import DictConfig

from llmft.config.paths import bytes_of
from llmft.config.validate import check
from llmft.export.unzip import ArchiveLimits, restore
from llmft.utils.console import Console
from llmft.utils.errors import UserError
from llmft.utils.folders import new_folder
from llmft.utils.logging import log_to
from llmft.utils.paths import user_path


def main(cfg: DictConfig) -> None:
    """Unpack ``archive`` into ``to``."""
    log_to(None)
    check(cfg)
    if cfg.archive is None or cfg.to is None:
        raise UserError("restore: pass archive=FILE and to=FOLDER")
    file = user_path(cfg.archive)
    if not file.is_file():
        raise UserError(f"archive={cfg.archive}: no such file")
    caps = ArchiveLimits(cfg.restore.max_files, bytes_of(cfg.restore.max_size), cfg.restore.max_ratio)
    names = restore(file, cfg.archive, new_folder("to", cfg.to), caps)
    Console(highlight=False, markup=False, emoji=False, soft_wrap=True).print(
        f"{len(names)} files, all as their checksums say: {cfg.to}"
    )
