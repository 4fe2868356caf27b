"""Compose a command's config, and explain overrides that Hydra rejects."""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from llmft.config.paths import conf_dir
from llmft.config.tree import walk
from llmft.utils.text import did_you_mean, first_line

# Names of settings in transformers, peft and trl -> their keys here.
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


def composition_faults(command: str, overrides: Sequence[str], config_dir: str | None = None) -> list[str]:
    """Errors that Hydra would raise for these overrides, each with a hint; empty if the config composes.

    Args:
        command: Name of the command, which is the name of its config in conf/.
        overrides: Hydra overrides from the command line.
        config_dir: The user's ``--config-dir``, if any.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from yaml import YAMLError

    if config_dir and not Path(config_dir).is_dir():
        return [f"--config-dir={config_dir}: no such folder"]
    roots = [conf_dir(), *([Path(config_dir).resolve()] if config_dir else [])]
    search = [f"hydra.searchpath=[{','.join(f'file://{root}' for root in roots[1:])}]"]

    def compose_error(given: Sequence[str]) -> str | None:
        try:
            compose(command, overrides=[*search, *given], return_hydra_config=True)
        except (HydraException, OmegaConfBaseException, YAMLError, OSError, ValueError) as error:
            return str(error) or type(error).__name__
        return None

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        error = compose_error(overrides)
        if error is None:
            return []
        groups = [o for o in overrides if _is_group(o.partition("=")[0], roots) and compose_error([o]) is None]
        errors = [(o, compose_error([*groups, o])) for o in overrides if o not in groups]
        composes = compose_error(groups) is None
        known = _config_keys(compose(command, overrides=[*search, *groups])) if composes else []
    faults = [_explain(override, reason, known, roots) for override, reason in errors if reason]
    return faults or [first_line(error)]


def _is_group(key: str, roots: Sequence[Path]) -> bool:
    return any((root / key.lstrip("+~").partition("@")[0]).is_dir() for root in roots)


def _config_keys(cfg: DictConfig) -> list[str]:
    """All keys and sections, as dotted paths without list items and private keys such as ``_target_``."""
    paths = (path for path, _ in walk(OmegaConf.to_container(cfg, resolve=False)))
    return [path for path in paths if path and "[" not in path and not re.search(r"(^|\.)_", path)]


def _explain(override: str, reason: str, known: list[str], roots: Sequence[Path]) -> str:
    key, _, value = override.partition("=")
    key = key.lstrip("+~")
    if _is_group(key, roots) and ("Could not find" in reason or "MissingConfig" in reason):
        options = sorted({f.stem for root in roots for f in (root / key).glob("[!_]*.yaml")})
        return f"{override}: no such option.{did_you_mean(value, options)} Available: {', '.join(options)}"
    if "Could not override" in reason or "not in struct" in reason:
        parent, _, last = key.rpartition(".")
        synonym = difflib.get_close_matches(last, SYNONYMS, n=1, cutoff=0.85)
        siblings = [k for k in known if k.rpartition(".")[0] == parent]
        meant = SYNONYMS[synonym[0]] if synonym else ""
        hint = f" Did you mean {meant}?" if meant in known else did_you_mean(key, known)
        return f"{key}: no such key.{hint} Available: {', '.join(siblings) or 'no keys'}"
    return f"{override}: {' '.join(line.strip() for line in reason.splitlines() if line.strip() and 'See http' not in line)}"
