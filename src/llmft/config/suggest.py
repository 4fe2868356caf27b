"""What a wrong key or option of the command line means: ``lr=1e-3`` is ``optim.lr=1e-3``, ``data=FILE`` is ``data.path=FILE``."""

import difflib
import re
import shlex
from collections.abc import Collection, Sequence
from typing import Any

import yaml

from llmft.config.paths import conf_dir
from llmft.utils.paths import user_path
from llmft.utils.shell import argument

# Names of settings in transformers, peft and trl -> their keys here; with a value, where the values differ too.
SYNONYMS = {
    "learning_rate": "optim.lr",
    "epochs": "trainer.max_epochs",
    "epoch": "trainer.max_epochs",
    "num_epochs": "trainer.max_epochs",
    "num_train_epochs": "trainer.max_epochs",
    "max_epochs": "trainer.max_epochs",
    "steps": "trainer.max_steps",
    "max_steps": "trainer.max_steps",
    "batch_size": "data.batch_size",
    "per_device_train_batch_size": "data.batch_size",
    "train_batch_size": "data.batch_size",
    "gradient_accumulation_steps": "trainer.accumulate_grad_batches",
    "accumulate_grad_batches": "trainer.accumulate_grad_batches",
    "model_name": "model.path",
    "model_path": "model.path",
    "base_model": "model.path",
    "model_name_or_path": "model.path",
    "model_id": "model.path",
    "dataset": "data.path",
    "dataset_name": "data.path",
    "data_path": "data.path",
    "data_file": "data.path",
    "data_files": "data.path",
    "train_file": "data.path",
    "max_length": "data.max_prompt_tokens",
    "max_seq_length": "data.max_prompt_tokens",
    "cutoff_len": "data.max_prompt_tokens",
    "packing": "data.batching=packed",
    "val_split": "data.split.val",
    "val_size": "data.split.val",
    "validation_split": "data.split.val",
    "test_size": "data.split.test",
    "lora_r": "peft.r",
    "rank": "peft.r",
    "lora_alpha": "peft.alpha",
    "lora_dropout": "peft.dropout",
    "target_modules": "peft.targets",
    "lora_target_modules": "peft.targets",
    "load_in_4bit": "peft=qlora",
    "load_in_8bit": "peft=lora_8bit",
    "use_dora": "peft=dora",
    "use_rslora": "peft=rslora",
    "warmup_ratio": "scheduler.warmup_steps",
    "lr_scheduler_type": "scheduler",
    "fp16": "trainer.precision=16-mixed",
    "bf16": "trainer.precision=bf16-mixed",
    "max_grad_norm": "callbacks.gradient_clipping.max_norm",
    "max_new_tokens": "generation.max_new_tokens",
    "gpus": "trainer.devices",
    "num_gpus": "trainer.devices",
    "device": "trainer.accelerator",
    "accelerator": "trainer.accelerator",
    "logging_steps": "trainer.log_every_n_steps",
    "save_steps": "callbacks.checkpoints.every_n_steps",
    "resume_from_checkpoint": "resume",
    "out": "output_dir",
    "output": "output_dir",
}
# Other names of options.
OPTIONS = {
    "peft": {"full": "none", "no": "none", "4bit": "qlora", "8bit": "lora_8bit", "adapter": "lora"},
    "trainer": {"cuda": "gpu", "fsdp2": "fsdp", "multi_gpu": "ddp"},
    "optim": {"adam": "adamw", "adamw_torch": "adamw", "adam8bit": "adamw_8bit"},
    "generation": {"sampling": "sample", "beams": "beam", "beam_search": "beam"},
    "data": {"sharegpt": "custom", "csv": "custom", "chat": "academic", "messages": "academic"},
}
PER_GROUP = ("optim", "trainer", "data", "model", "peft", "scheduler", "generation")  # the likelier group first
DATA_FILE = re.compile(r"\.(jsonl?|csv|tsv|parquet|txt|xlsx?)(\.(gz|zst))?$", re.IGNORECASE)


def key_hint(key: str, value: str, known: Collection[str]) -> str:
    """`` Did you mean optim.lr=1e-3?`` for a key that does not exist; empty without an idea.

    Args:
        key: As given.
        value: As given; part of the hint, so that it can be pasted.
        known: All keys and sections of the command's config.
    """
    sections = {name.rpartition(".")[0] for name in known}
    meant = _synonym(key, known) or _same_name(key, known) or _key_of_option(key, sections)
    meant = meant or _similar(key, [name for name in known if name not in sections])
    texts = [
        option if "=" in name else f"{option} ".lstrip() + shlex.quote(f"{name}={value}") for option, name in meant
    ]
    return f" Did you mean {' or '.join(texts)}?" if texts else ""


# Each returns pairs: the option that has the key (or a complete option=value), and the key.
Meant = list[tuple[str, str]]


def _synonym(key: str, known: Collection[str]) -> Meant:
    near = difflib.get_close_matches(key.rpartition(".")[2], SYNONYMS, n=1, cutoff=0.85)
    meant = SYNONYMS[near[0]] if near else ""
    name, equals, _ = meant.partition("=")
    if name not in known or name == key:
        return []
    return [(meant, meant)] if equals else [("", name)]


def _same_name(key: str, known: Collection[str]) -> Meant:
    same = [name for name in known if name.count(".") == 1 and name.partition(".")[2] == key]
    return [("", name) for name in sorted(same, key=_rank)[:2]]


def _key_of_option(key: str, sections: Collection[str]) -> Meant:
    """A key that another option of its group has, such as ``peft.r`` of ``peft=lora``."""
    section, _, name = key.rpartition(".")
    for group in (section,) if section else PER_GROUP:
        found = [option for option in _options(group) if name in _keys_of(group, option)] if group in sections else []
        if found:
            return [(f"{group}={'lora' if 'lora' in found else found[0]}", f"{group}.{name}")]
    return []


def _similar(key: str, known: Sequence[str]) -> Meant:
    parent, _, last = key.rpartition(".")
    siblings = {name.rpartition(".")[2]: name for name in known if name.rpartition(".")[0] == parent}
    if near := difflib.get_close_matches(last, siblings, n=1):
        return [("", siblings[near[0]])]
    if near := difflib.get_close_matches(key, known, n=1, cutoff=0.8):
        return [("", near[0])]
    lasts = {name.rpartition(".")[2]: name for name in sorted(known, key=_rank, reverse=True)}
    near = difflib.get_close_matches(last, lasts, n=1, cutoff=0.75)
    return [("", lasts[name]) for name in near]


def _rank(name: str) -> int:
    group = name.partition(".")[0]
    return PER_GROUP.index(group) if group in PER_GROUP else len(PER_GROUP)


def option_hint(group: str, value: str, options: Sequence[str]) -> str:
    """`` Did you mean ...?`` for an option that does not exist: other spelling, file, folder or Hub id; empty without an idea."""
    meant: list[str] = []
    if value.endswith((".yaml", ".yml")):
        stem = value.rpartition(".")[0].rpartition("/")[2]
        if stem not in options:
            return f" Files of your own are options with --config-dir=DIR: DIR/{group}/{stem}.yaml is {group}={stem}"
        meant = [f"{group}={stem}"]
    elif group == "model" and ("/" in value or user_path(value).is_dir()):
        meant = [_model_meant(value, options)]
    elif group == "data" and ("*" in value or DATA_FILE.search(value) or user_path(value).exists()):
        meant = [argument("data.path", value)]
    elif group == "data" and "/" in value:  # on the Hub
        meant = [f"data=custom {argument('data.path', value)}"]
    elif other := OPTIONS.get(group, {}).get(value.lower()):
        meant = [f"{group}={other}"]
    elif group == "trainer" and value in ("mps", "auto"):
        meant = [f"trainer.accelerator={value}"]
    else:
        meant = [f"{group}={option}" for option in difflib.get_close_matches(value.lower(), options, n=1)]
    return f" Did you mean {meant[0]}?" if meant else ""


def _model_meant(value: str, options: Sequence[str]) -> str:
    """The options for a model of a folder, a run, an adapter, or the Hub."""
    folder = user_path(value)
    if (folder / "run.json").is_file() and (folder / "model").is_dir():
        folder = folder / "model"
    if (folder / "adapter_config.json").is_file():
        return f"peft=lora {argument('peft.adapter', value)}, with model=... as it was trained on"
    for option in options:
        if _keys_of("model", option).get("path") == value:
            return f"model={option}"
    path = str(folder) if folder != user_path(value) else value
    return f"model=auto {argument('model.path', path)}"


def _options(group: str) -> list[str]:
    return sorted(file.stem for file in (conf_dir() / group).glob("[!_]*.yaml"))


def _keys_of(group: str, option: str) -> dict[str, Any]:
    file = conf_dir() / group / f"{option}.yaml"
    return (yaml.safe_load(file.read_bytes()) or {}) if file.is_file() else {}
