"""llama.cpp's converter from the pinned source archive of llama-cpp-python, unpacked once into the cache folder.

The built package does not contain the converter, and no other package of its authors does. It is not copied into llmft.
"""

import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

from llmft.data.sources import digest
from llmft.utils.cache import cache_root, cached_folder
from llmft.utils.errors import UserError
from llmft.utils.paths import user_path

PACKAGE, VERSION = "llama-cpp-python", "0.3.36"
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
NAME = f"llama_cpp_python-{VERSION}.tar.gz"
FOLDER = f"llama.cpp-{VERSION}-{SHA256[:12]}"  # in the cache
# Of 3,884 members the converter needs 108. No name outside of this pattern is written.
NEEDED = re.compile(
    rf"llama_cpp_python-{re.escape(VERSION)}/vendor/llama\.cpp/"
    r"((?:convert_hf_to_gguf|convert_lora_to_gguf)\.py|LICENSE|(?:conversion|gguf-py/gguf)/\w+\.py)",
    re.ASCII,
)
MAX_BYTES = 16 * 2**20  # of all members together, unpacked; they have 2 MB
DOWNLOAD = f"pip download --no-deps --no-binary {PACKAGE} {PACKAGE}=={VERSION}"


def converter_folder(archive: str | None = None, *, download: bool = False) -> Path:
    """The folder with ``convert_hf_to_gguf.py`` and ``convert_lora_to_gguf.py``.

    Args:
        archive: ``gguf_archive``: the source archive on this machine. Its SHA-256 is checked even if it is not needed.
        download: Fetch the archive from the package registry if the cache does not have the converter.

    Raises:
        UserError: The archive is missing, or another one.
    """
    if archive is not None:
        file = user_path(archive)
        if not file.is_file():
            raise UserError(f"gguf_archive={archive}: there is no such file")
        _check(file, f"gguf_archive={archive}")
        return cached_folder(FOLDER, lambda folder: unpack(file, folder))
    if not (cache_root() / FOLDER).is_dir() and not download:
        raise UserError(
            f"form=gguf: llama.cpp's converter is not on this machine. It is part of {NAME} (77 MB): pass download=true to "
            f"fetch that once, or, on a machine without a network, gguf_archive={NAME} after\n    {DOWNLOAD}"
        )
    return cached_folder(FOLDER, _fetch)


def unpack(archive: Path, folder: Path) -> None:
    """Write the converter's files; every other member of the archive is skipped.

    Args:
        archive: The archive, whose SHA-256 has been checked.
        folder: An existing folder.

    Raises:
        UserError: A needed member is no regular file, or they are larger than ``MAX_BYTES``.
    """
    size = 0
    with tarfile.open(archive, "r:gz") as members:
        for member in members:
            match = NEEDED.fullmatch(member.name)
            if not match:
                continue
            size += member.size
            content = members.extractfile(member) if member.isreg() and size <= MAX_BYTES else None
            if content is None:
                raise UserError(f"{archive}: {member.name} is not a file of the expected kind or size")
            target = folder / PurePosixPath(match[1])
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content.read())


def _check(file: Path, given: str) -> None:
    if (found := digest(file)) != SHA256:
        raise UserError(f"{given}: has the SHA-256 {found}, but {NAME} has {SHA256}")


def _fetch(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        wanted = Path(scratch) / "requirements.txt"
        # pip checks the digest before it looks into the archive
        wanted.write_text(f"{PACKAGE}=={VERSION} --hash=sha256:{SHA256}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", PACKAGE]
        command += ["--require-hashes", "--dest", scratch, "--requirement", str(wanted)]
        # S603: no argument comes from a user
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        file = Path(scratch) / NAME
        if done.returncode or not file.is_file():
            reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
            raise UserError(
                f"download=true: the package registry did not give {NAME} ({reason}). On a machine with a network:\n"
                f"    {DOWNLOAD}\nthen pass gguf_archive={NAME}"
            )
        _check(file, "download=true")
        unpack(file, folder)
