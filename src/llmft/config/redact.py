"""Remove secrets from configs and command lines before they are shown or written."""

import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

from llmft.config.tree import walk
from llmft.utils.files import atomic_write
from llmft.utils.text import hide

SECRET = re.compile(
    r"(^|_)((api|access|private|secret)_?key|token|secret|password|passwd|passphrase|credentials?)$", re.IGNORECASE
)
# A key and its value in a mapping of Hydra's grammar: {api_key: x}, {api_key: 'a, b'}
NESTED = re.compile(r"""(?P<key>(?P<name>\w+)['"]?\s*:\s*)(?P<value>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^,{}\[\]]+)""")
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
    """A command-line argument, with its value masked if the key names a secret, also of a key in a mapping."""
    key, equals, value = argument.partition("=")
    if equals and SECRET.search(key.rpartition(".")[2]):
        return f"{key}={REDACTED}"
    return f"{key}{equals}{NESTED.sub(_masked, value)}" if "{" in value else argument


def _masked(found: re.Match[str]) -> str:
    return f"{found['key']}{REDACTED}" if SECRET.search(found["name"]) else found[0]


def hide_environment(*configs: Any) -> None:
    """Let messages, logs and files show values that these configs take from the environment as interpolations (``unresolved``).

    Args:
        configs: Composed configs; interpolations are resolved to see which variables they read.
    """
    for cfg in configs:
        raw = list(walk(OmegaConf.to_container(cfg, resolve=False)))
        secrets = {text for key, text in raw if isinstance(text, str) and SECRET.search(key) and "${" not in text}
        hide(secrets=secrets)
        if any(isinstance(text, str) and "oc.env:" in text for _, text in raw):
            hide(variables=_variables_of(cfg, [key for key, text in raw if isinstance(text, str) and "${" in text]))


def _variables_of(cfg: DictConfig, keys: Iterable[str]) -> set[str]:
    """The environment variables that ``oc.env`` reads while these keys are resolved."""
    names: set[str] = set()

    def record(name: str, *default: Any) -> Any:
        names.add(name)
        return oc.env(name, *default)

    OmegaConf.register_new_resolver("oc.env", record, replace=True)
    try:
        for key in keys:
            with suppress(OmegaConfBaseException):
                OmegaConf.select(cfg, key)
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)
    return names


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
