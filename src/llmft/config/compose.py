"""Configs: where conf/ is, and what is wrong with what the command line asks for."""

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from llmft.errors import UserError

MAX_VALUES = 100_000  # of a stored config; a training's has some 200
# What people coming from other tools write, and what it is called here.
SYNONYMS = {
    "learning_rate": "optim.lr",
    "epochs": "trainer.max_epochs",
    "num_train_epochs": "trainer.max_epochs",
    "max_epochs": "trainer.max_epochs",
    "max_steps": "trainer.max_steps",
    "batch_size": "data.batch_size",
    "per_device_train_batch_size": "data.batch_size",
    "gradient_accumulation_steps": "trainer.accumulate_grad_batches",
    "lora_r": "peft.r",
    "rank": "peft.r",
    "lora_alpha": "peft.alpha",
    "lora_dropout": "peft.dropout",
    "target_modules": "peft.targets",
    "load_in_4bit": "peft.quantise",
    "load_in_8bit": "peft.quantise",
    "use_dora": "peft.dora",
    "use_rslora": "peft.rslora",
    "warmup_ratio": "scheduler.warmup_steps",
    "fp16": "trainer.precision",
    "bf16": "trainer.precision",
    "max_grad_norm": "callbacks.gradient_clipping.max_norm",
    "max_new_tokens": "generation.max_new_tokens",
}


def conf_dir() -> Path:
    """``conf/``: inside the package of an installed wheel, at the repository's root beside ``src`` otherwise."""
    inside = Path(__file__).parent / "conf"
    return inside if inside.is_dir() else Path(__file__).resolve().parents[2] / "conf"


def user_path(text: str) -> Path:
    """A path as a user writes it, with ``~``.

    Raises:
        UserError: It is no path, or names the home of a user whom there is not.
    """
    try:
        return Path(text).expanduser()
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{text}: {error}") from None


def stored_config(file: Path) -> DictConfig:
    """``config.yaml`` of a run, perhaps somebody else's.

    Raises:
        ValueError: It is no YAML of a config, or its aliases would make it grow beyond all measure.
    """
    from yaml import CSafeLoader, MappingNode, YAMLError, compose

    try:
        text = file.read_text(encoding="utf-8")
        node = compose(text, Loader=CSafeLoader)
        if not isinstance(node, MappingNode):
            raise ValueError("it is not the config of a run")
        if _grown(node, {}) > MAX_VALUES:
            raise ValueError(f"it would have more than {MAX_VALUES:,} values")
        return OmegaConf.create(text)  # pyright: ignore[reportReturnType] (a mapping gives a DictConfig)
    except (OSError, YAMLError, RecursionError, OmegaConfBaseException) as error:
        raise ValueError(" ".join(str(error).split())[:300]) from None


def _grown(node: Any, known: dict[int, int]) -> int:
    """How many values a YAML document has once its aliases are written out."""
    if isinstance(node.value, str):
        return 1
    if id(node) not in known:
        known[id(node)] = MAX_VALUES + 1  # one that holds itself never ends
        pairs = [part for pair in node.value for part in (pair if isinstance(pair, tuple) else (pair,))]
        known[id(node)] = 1 + sum(_grown(part, known) for part in pairs)
    return known[id(node)]


def bytes_of(size: str) -> int:
    """``4GB``, ``500MB``, ``20KB`` -> bytes, by powers of 1000."""
    number, unit = size[:-2], size[-2:].upper()
    return int(float(number) * 1000 ** ("KB", "MB", "GB", "TB").index(unit) * 1000)


def prompt_config(name: str) -> Any:
    """The shipped config of a prompt."""
    return OmegaConf.load(conf_dir() / "prompt" / f"{name}.yaml")


def composition_faults(command: str, overrides: Sequence[str], config_dir: str | None = None) -> list[str]:
    """What Hydra would refuse in these overrides, each with the way out; empty if they compose."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    if config_dir and not Path(config_dir).is_dir():
        return [f"--config-dir={config_dir}: no such folder"]
    roots = [conf_dir(), *([Path(config_dir).resolve()] if config_dir else [])]
    search = [f"hydra.searchpath=[{','.join(f'file://{root}' for root in roots[1:])}]"]

    def fault(given: Sequence[str]) -> str | None:
        try:
            compose(command, overrides=[*search, *given], return_hydra_config=True)
        except Exception as error:  # Hydra's and OmegaConf's errors have no common base
            return str(error) or type(error).__name__
        return None

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        whole = fault(overrides)
        if whole is None:
            return []
        groups = [o for o in overrides if _is_group(o.partition("=")[0], roots) and fault([o]) is None]
        alone = [(o, fault([*groups, o])) for o in overrides if o not in groups]
        known = _leaves(compose(command, overrides=[*search, *groups])) if fault(groups) is None else []
    faults = [_explain(override, reason, known, roots) for override, reason in alone if reason]
    return faults or [whole.splitlines()[0]]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`` Did you mean X?`` for the nearest known word, or nothing."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean {near[0]}?" if near else ""


def _is_group(key: str, roots: Sequence[Path]) -> bool:
    return any((root / key.lstrip("+~").partition("@")[0]).is_dir() for root in roots)


def _leaves(cfg: DictConfig) -> list[str]:
    raw = OmegaConf.to_container(cfg, resolve=False)

    def walk(node: Any, path: str) -> list[str]:
        if not isinstance(node, dict):
            return [path]
        children = {
            f"{path}.{key}" if path else str(key): child for key, child in node.items() if not key.startswith("_")
        }
        inner = [leaf for name, child in children.items() for leaf in walk(child, name)]
        return [path, *inner] if path else inner

    return walk(raw, "")


def _explain(override: str, reason: str, known: list[str], roots: Sequence[Path]) -> str:
    key, _, value = override.partition("=")
    key = key.lstrip("+~")
    if _is_group(key, roots) and ("Could not find" in reason or "MissingConfig" in reason):
        options = sorted({f.stem for root in roots for f in (root / key).glob("[!_]*.yaml")})
        return f"{override}: no such option.{did_you_mean(value, options)} There are: {', '.join(options)}"
    if "Could not override" in reason or "not in struct" in reason:
        parent, _, last = key.rpartition(".")
        synonym = difflib.get_close_matches(last, SYNONYMS, n=1, cutoff=0.85)
        beside = [k for k in known if k.rpartition(".")[0] == parent]
        meant = SYNONYMS[synonym[0]] if synonym else ""
        hint = f" Did you mean {meant}?" if meant in known else did_you_mean(key, known)
        return f"{key}: no such key.{hint} Here there are: {', '.join(beside) or 'no keys'}"
    return f"{override}: {' '.join(line.strip() for line in reason.splitlines() if line.strip() and 'See http' not in line)}"


def checked(faults: Sequence[str]) -> None:
    """Raise one UserError for all faults of a config.

    Raises:
        UserError: There are faults.
    """
    if faults:
        raise UserError.from_faults("config", faults, shown=len(faults))
