"""Contents of files by their hash: pytest compares large bytes for minutes to print where they differ."""

import hashlib
from pathlib import Path


def digest(data: bytes | Path) -> str:
    """SHA-256 of some bytes or of a file."""
    return hashlib.sha256(data.read_bytes() if isinstance(data, Path) else data).hexdigest()


def digests(*files: Path) -> dict[str, str]:
    """File name -> SHA-256."""
    return {file.name: digest(file) for file in files}
