"""Locate conf/ and read shipped config files."""

from pathlib import Path


def conf_dir() -> Path:
    """Path of ``conf/``: inside the package in an installed wheel, next to ``src`` in a checkout."""
    inside = Path(__file__).parents[1] / "conf"
    return inside if inside.is_dir() else Path(__file__).resolve().parents[3] / "conf"


def parse_size(size: str) -> int:
    """Parse a size such as ``4GB``, ``500MB`` or ``20KB`` to bytes (powers of 1000)."""
    number, unit = size[:-2], size[-2:].upper()
    return int(float(number) * 1000 ** ("KB", "MB", "GB", "TB").index(unit) * 1000)
