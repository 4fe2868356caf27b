"""``restore``: an archive of ``export`` back to a folder."""

from omegaconf import DictConfig

from llmft import session
from llmft.check import check
from llmft.config import bytes_of, user_path
from llmft.errors import UserError
from llmft.shipping.restore import Caps, restore
from llmft.shipping.staged import new_folder
from llmft.terminal import Console


def main(cfg: DictConfig) -> None:
    """Unpack ``archive`` into ``to``."""
    session.log_to(None)
    check(cfg)
    if cfg.archive is None or cfg.to is None:
        raise UserError("restore: pass archive=FILE and to=FOLDER")
    file = user_path(cfg.archive)
    if not file.is_file():
        raise UserError(f"archive={cfg.archive}: no such file")
    caps = Caps(cfg.restore.max_files, bytes_of(cfg.restore.max_size), cfg.restore.max_ratio)
    names = restore(file, cfg.archive, new_folder("to", cfg.to), caps)
    Console(highlight=False, markup=False, emoji=False, soft_wrap=True).print(
        f"{len(names)} files, all as their checksums say: {cfg.to}"
    )
