"""Remove secrets from configs and command lines before they are shown or written."""

import re
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from llmft.utils.files import atomic_write

SECRET = re.compile(r"(^|_)(api_?key|token|secret|password|credentials?)$", re.IGNORECASE)
REDACTED = "***"


def save_config(cfg: DictConfig, file: Path) -> None:
    """Write ``config.yaml``: resolved and redacted."""
    atomic_write(file, OmegaConf.to_yaml(OmegaConf.create(redact_config(cfg))))


def redact_config(cfg: DictConfig) -> dict[str, Any]:
    """A resolved config as plain data, with the value of every secret key (``*_token``, ``api_key``, ...) masked.

    A value read from the environment stays an interpolation wherever it is used, so it is never written to a file and
    still resolves later.
    """
    resolved: Any = OmegaConf.to_container(cfg, resolve=True)
    raw: Any = OmegaConf.to_container(cfg, resolve=False)
    return _redact(resolved, raw, "", _from_environment(resolved, raw))


def redact_argument(argument: str) -> str:
    """A command-line argument, with its value masked if the key names a secret."""
    key, equals, _ = argument.partition("=")
    return f"{key}={REDACTED}" if equals and SECRET.search(key.rpartition(".")[2]) else argument


def _redact(value: Any, raw: Any, key: str, hidden: set[str]) -> Any:
    if isinstance(value, dict):
        return {k: _redact(v, _child(raw, k), str(k), hidden) for k, v in value.items()}
    if isinstance(value, list):
        return [_redact(v, _child(raw, i), key, hidden) for i, v in enumerate(value)]
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
