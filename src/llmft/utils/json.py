"""JSON files without NaN or infinity."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmft.utils.files import atomic_write
from llmft.utils.text import escaped, unresolved


def finite(value: Any) -> Any:
    """The value with null for NaN and infinity, which JSON has no numbers for."""
    if isinstance(value, dict):
        return {str(key): finite(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [finite(child) for child in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write(file: Path, value: Any, default: Callable[[Any], Any] | None = None) -> None:
    """Replace a file by an indented JSON document, atomically.

    Args:
        file: Its name.
        value: Of plain types; NaN and infinity become null.
        default: As for ``json.dumps``.

    Raises:
        OSError: As for ``files.atomic_open``.
    """
    text = json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False, default=default)
    atomic_write(file, escaped(unresolved(text)) + "\n")
