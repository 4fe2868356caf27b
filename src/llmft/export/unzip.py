"""Safely unpack an untrusted zip archive into a new folder; on any error nothing is left behind."""

import hashlib
import shutil
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from llmft.export import checksums
from llmft.utils.errors import UserError
from llmft.utils.files import atomic_folder

BLOCK = 2**20
MAX_SUMS = 2**24  # bytes of SHA256SUMS
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# Exceptions of the standard library for truncated, encrypted or malicious archives.
BROKEN = (
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,
    zlib.error,
    EOFError,
    struct.error,
    ValueError,
    OverflowError,
)


class ArchiveLimits(NamedTuple):
    """Maximum number of files, unpacked bytes, and compression ratio (unpacked bytes per byte of the archive)."""

    files: int
    size: int
    ratio: float


def restore(archive: Path, given: str, to: Path, limits: ArchiveLimits) -> list[str]:
    """Unpack into ``to``, which must not exist yet; returns the names of the files.

    Args:
        archive: A zip file with ``SHA256SUMS``, as ``export zip=true`` writes it.
        given: The path as the user wrote it, for messages.
        to: The target folder.
        limits: Larger archives are refused.

    Raises:
        UserError: The file is not such an archive, has paths outside of ``to``, links or devices, exceeds a limit, or does
            not match its checksums. Nothing is left behind then.
    """
    try:
        with zipfile.ZipFile(archive) as packed:
            members = [info for info in packed.infolist() if not info.is_dir()]
            faults = [*_archive_faults(members, archive.stat().st_size, limits, to.parent)]
            faults += [fault for info in packed.infolist() for fault in _member_faults(info)]
            faults = faults or [*_clashes(members)]
            if faults:
                raise UserError.from_faults(f"archive={given}", faults)
            sums = _sums(packed, given, {info.filename for info in members})
            with atomic_folder(to, new=True) as folder:
                for info in members:
                    _extract(packed, info, folder, sums.get(info.filename), given)
    except BROKEN as error:
        raise UserError(f"archive={given}: is not a valid zip archive ({error})") from None
    return sorted(info.filename for info in members)


def _archive_faults(
    members: Sequence[zipfile.ZipInfo], packed: int, limits: ArchiveLimits, parent: Path
) -> Iterator[str]:
    size = sum(info.file_size for info in members)
    if len(members) > limits.files:
        yield f"holds {len(members):,} files; restore.max_files is {limits.files:,}"
    if size > limits.ratio * packed:
        yield f"would unpack to {size / packed:.0f} times its {packed:,} bytes; restore.max_ratio is {limits.ratio:g}"
    if size > limits.size:
        yield f"would be {size:,} bytes unpacked; restore.max_size is {limits.size:,}"
    elif size > (free := shutil.disk_usage(parent).free):
        yield f"would be {size:,} bytes unpacked; {parent} has {free:,} left"


def _member_faults(info: zipfile.ZipInfo) -> Iterator[str]:
    name, shown = info.filename, ascii(info.orig_filename)[:120]
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        yield f"{shown}: is a {'link' if kind == stat.S_IFLNK else 'device or pipe'}; only files and folders are allowed"
    if not _is_safe_path(name, info.orig_filename):
        yield f"{shown}: is not a plain relative path"
    if info.flag_bits & 0x1:
        yield f"{shown}: is encrypted"
    if info.compress_type not in COMPRESSIONS:
        yield f"{shown}: has an unsupported compression (only stored and deflated are allowed)"


def _is_safe_path(name: str, original: str) -> bool:
    """Whether a name is a path inside the target folder on any operating system."""
    parts = name.removesuffix("/").split("/")
    plain = name.isprintable() and not any(char in original for char in '\0\\:*?"<>|')
    return (
        plain and all(part.strip(" .") and len(part.encode()) <= 255 for part in parts) and len(name.encode()) <= 1024
    )


def _clashes(members: Sequence[zipfile.ZipInfo]) -> Iterator[str]:
    """Names that collide on a case-insensitive file system, and files that are also used as folders."""
    seen: set[str] = set()
    for info in members:
        name = _folded(info.filename)
        if name in seen:
            yield f"{ascii(info.filename)[:120]}: occurs twice"
        seen.add(name)
    for info in members:
        if any(str(above) in seen for above in PurePosixPath(_folded(info.filename)).parents):
            yield f"{ascii(info.filename)[:120]}: is inside a file"


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _sums(packed: zipfile.ZipFile, given: str, names: set[str]) -> dict[str, str]:
    if checksums.NAME not in names or packed.getinfo(checksums.NAME).file_size > MAX_SUMS:
        raise UserError(f"archive={given}: has no {checksums.NAME}; restore needs an archive of `export zip=true`")
    try:
        sums = checksums.parse(packed.read(checksums.NAME).decode("utf-8").splitlines())
    except ValueError as error:
        raise UserError(f"archive={given}: {error}") from None
    if mismatch := sorted(set(sums) ^ (names - {checksums.NAME})):
        raise UserError(f"archive={given}: {mismatch[0]!a} is only in one of {checksums.NAME} and the archive")
    return sums


def _extract(packed: zipfile.ZipFile, info: zipfile.ZipInfo, folder: Path, wanted: str | None, given: str) -> None:
    file = folder / info.filename
    file.parent.mkdir(parents=True, exist_ok=True)
    hashed, left = hashlib.sha256(), info.file_size
    with packed.open(info) as source, file.open("xb") as target:
        while block := source.read(BLOCK):
            left -= len(block)
            if left < 0:
                raise UserError(f"archive={given}: {info.filename!a} is longer than the archive says")
            hashed.update(block)
            target.write(block)
    if left or (wanted is not None and hashed.hexdigest() != wanted):
        raise UserError(f"archive={given}: {info.filename!a} differs from its checksum; the archive is damaged")
