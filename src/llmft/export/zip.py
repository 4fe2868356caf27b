"""Pack a folder into a zip archive, reproducibly: equal files give equal bytes."""

import shutil
import zipfile
from pathlib import Path

from llmft.export.checksums import list_files
from llmft.utils.files import atomic_open

EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date in a zip
READABLE = 0o100644 << 16  # a regular file


def pack(folder: Path, archive: Path) -> None:
    """Write all files below a folder, atomically and uncompressed (weights do not compress)."""
    with atomic_open(archive, "wb", shared=True) as out, zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as packed:
        for name in list_files(folder):
            info = zipfile.ZipInfo(name, EPOCH)
            info.external_attr = READABLE
            with (folder / name).open("rb") as source, packed.open(info, "w", force_zip64=True) as target:
                shutil.copyfileobj(source, target, 2**20)
