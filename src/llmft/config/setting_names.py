"""Short names and values of settings: ``lr=1e-3, r=8`` for ``optim.lr`` and ``peft.r``."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

LONGEST = 40  # characters of a value in a name


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """A short name for each config key: its last part, or all of it where two keys end in the same part.

    ``model.name`` is ``model``.
    """
    whole = {key: key.removesuffix(".name") for key in keys}
    last = [name.rpartition(".")[2] for name in whole.values()]
    short = {key: name.rpartition(".")[2] for key, name in whole.items()}
    return {key: name if last.count(name) == 1 else whole[key] for key, name in short.items()}


def short_value(value: Any) -> str:
    """A value of the config with three significant digits: ``1e-3``, ``0.05``, ``true``, ``null``."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float) and math.isfinite(value) and value:
        if 0.01 <= abs(value) < 1e5:
            return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    text = str(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def label(settings: Mapping[str, Any], keys: Iterable[str]) -> str:
    """The settings under some keys in one line, such as ``model=tiny_t5, lr=1e-3``."""
    names = short_names(keys)
    return ", ".join(f"{name}={short_value(settings.get(key))}" for key, name in names.items())
