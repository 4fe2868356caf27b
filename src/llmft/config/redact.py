"""A config or command line -> what may be shown and written: no secrets."""

import re
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from llmft.utils.files import write

SECRET = re.compile(r"(^|_)(api_?key|token|secret|password|credentials?)$", re.IGNORECASE)
REDACTED = "***"


def save(cfg: DictConfig, file: Path) -> None:
    """``config.yaml``: resolved, so that it stands alone, without secrets."""
    write(file, OmegaConf.to_yaml(OmegaConf.create(safe(cfg))))


def safe(cfg: DictConfig) -> dict[str, Any]:
    """A config to be shown or written: a key named as a secret is struck out.

    A value from the environment stays an interpolation, wherever it went, so that it lands in no file and still resolves.
    """
    resolved: Any = OmegaConf.to_container(cfg, resolve=True)
    raw: Any = OmegaConf.to_container(cfg, resolve=False)
    return _safe(resolved, raw, "", _from_environment(resolved, raw))


def safe_argument(argument: str) -> str:
    """A command-line argument without the value of a key named as a secret."""
    key, equals, _ = argument.partition("=")
    return f"{key}={REDACTED}" if equals and SECRET.search(key.rpartition(".")[2]) else argument


def _safe(value: Any, raw: Any, key: str, hidden: set[str]) -> Any:
    if isinstance(value, dict):
        return {k: _safe(v, _child(raw, k), str(k), hidden) for k, v in value.items()}
    if isinstance(value, list):
        return [_safe(v, _child(raw, i), key, hidden) for i, v in enumerate(value)]
    if value is not None and SECRET.search(key):
        return REDACTED
    from_environment = "${oc.env:" in str(raw) or any(secret in str(value) for secret in hidden)
    return (raw if "${" in str(raw) else REDACTED) if from_environment else value


def _from_environment(value: Any, raw: Any) -> set[str]:
    if isinstance(value, dict):
        return set().union(*(_from_environment(v, _child(raw, k)) for k, v in value.items()))
    if isinstance(value, list):
        return set().union(*(_from_environment(v, _child(raw, i)) for i, v in enumerate(value)))
    return {str(value)} if "${oc.env:" in str(raw) and len(str(value)) > 3 else set()


def _child(raw: Any, key: Any) -> Any:
    if isinstance(raw, dict):
        return raw.get(key)
    return raw[key] if isinstance(raw, list) else raw
