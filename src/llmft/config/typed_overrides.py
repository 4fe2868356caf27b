"""The overrides of the running job as they were typed, and what the command line alone may allow."""

from collections.abc import Iterator, Sequence
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException


def task_overrides() -> list[str]:
    """The overrides of the running Hydra job, interpolations unresolved; empty outside of a job.

    They are strings of a config, so that reading them one by one would resolve ``${oc.env:TOKEN}`` in them.
    """
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return []
    overrides: Any = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    return [str(text) for text in overrides]


def typed_overrides() -> list[str]:
    """The overrides of the running job without those of ``hydra.sweeper.params``, which may come from a file."""
    from hydra.core.hydra_config import HydraConfig

    overrides = task_overrides()
    job: Any = HydraConfig.get() if overrides else {}
    sweeper = job.get("sweeper")
    params = {str(key).lstrip("+~") for key in (sweeper or {}).get("params") or {}}
    return [text for text in overrides if text.partition("=")[0].lstrip("+~") not in params]


def has_config_dir() -> bool:
    """Whether the running job has a ``--config-dir``, whose files are not trusted."""
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return False
    return any(source.provider == "command-line" for source in HydraConfig.get().runtime.config_sources)


def list_of(key: str, overrides: Sequence[str]) -> list[str]:
    """The items of a list that the command line sets, such as ``allow_targets``; empty without it."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    given = [text for text in overrides if text.lstrip("+").partition("=")[0] == key]
    value = OverridesParser.create().parse_override(given[-1]).value() if given else []
    return [str(item) for item in value] if isinstance(value, list) else []


def values_of(key: str, overrides: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """The text and the value of each override that sets a key, by itself or as part of a mapping.

    A value with interpolations is resolved by itself, so that it cannot come from a file: ``${oc.env:X}`` has a value, and
    ``${data.name}`` has none (None).
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    for text in overrides:
        name = text.partition("=")[0].lstrip("+~").partition("@")[0]
        if key != name and not key.startswith(f"{name}."):
            continue
        try:
            value: Any = OverridesParser.create().parse_override(text).value()
        except Exception:  # noqa: S112 (Hydra refuses it too; the parser's errors have no common base)
            continue
        for part in key[len(name) :].lstrip(".").split(".") if key != name else ():
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None:
            given = str(value)
            yield given, _by_itself(given)


def _by_itself(text: str) -> str | None:
    if "${hydra:" in text:
        return None
    try:
        return str(OmegaConf.create({"value": text}).value)
    except OmegaConfBaseException:
        return None
