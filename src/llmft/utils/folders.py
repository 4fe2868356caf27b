"""A folder that is there whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llmft.utils.errors import UserError
from llmft.utils.paths import user_path


def new_folder(key: str, text: str) -> Path:
    """The folder that ``key=text`` asks for, which must not be there yet (or be empty).

    Raises:
        UserError: It holds something, is a file, or the folder that it shall stand in is not there.
    """
    folder = user_path(text).absolute()
    if not folder.parent.is_dir():
        raise UserError(f"{key}={text}: there is no folder {folder.parent}")
    if os.path.lexists(folder) and (folder.is_symlink() or not folder.is_dir()):
        raise UserError(f"{key}={text}: is there and is no folder")
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{key}={text}: holds something already; choose another folder or remove it")
    return folder


@contextmanager
def whole_or_nothing(final: Path) -> Iterator[Path]:
    """A folder to write into, beside ``final`` and under its name once all is well; removed if anything goes wrong."""
    unfinished = final.with_name(f".{final.name}.{os.getpid()}.tmp")
    unfinished.mkdir()
    try:
        yield unfinished
        unfinished.rename(final)  # an empty folder of that name gives way
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
