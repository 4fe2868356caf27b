"""``prove``: take the first optimizer steps of a training, and let a referee compute them again."""

import sys
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from omegaconf import DictConfig
from rich.table import Table
from rich.text import Text

from llmft.config.auto_values import resolve_auto
from llmft.config.schema import ProveConfig
from llmft.config.typed_overrides import task_overrides
from llmft.config.validate import check
from llmft.models.architecture_check import architecture_faults
from llmft.models.backbone.auto import with_lora_targets
from llmft.training.first_steps import train_first_steps
from llmft.training.key_effects import KeyEffects, key_effects
from llmft.utils.console import Console
from llmft.utils.determinism import prepare
from llmft.utils.device import check_accelerator
from llmft.utils.errors import Halted, UserError
from llmft.utils.json import finite
from llmft.utils.logging import log_to, quiet
from llmft.utils.text import json_line, printable

COLORS = {"none": "yellow", "default": "dim", "outside": "dim", "needed": "dim"}


def main(cfg: DictConfig) -> None:
    """Train the first steps in a temporary folder, print what the referee found.

    Raises:
        UserError: The referee cannot follow this training.
        Halted: Training and referee diverge.
    """
    quiet()
    log_to(None)
    prepare(cfg)
    config = check(cfg, ProveConfig, architecture=architecture_faults)
    if config.prove.steps == 0:
        raise UserError("prove.steps=0: nothing to prove; pass prove.steps=20")
    if config.resume:
        raise UserError(f"resume={config.resume}: a resumed training does not take its first steps; leave it out")
    check_accelerator(config.trainer)
    config = with_lora_targets(resolve_auto(config)[0])
    with redirect_stdout(sys.stderr):  # the audit of the data; standard output is for the result
        proof = prove(config)
    effects = key_effects("prove", task_overrides(), config.prove.steps) if config.prove.keys else None
    if config.format == "json":
        keys = {"keys": effects.as_dict()} if effects else {}
        Console(soft_wrap=True).file.write(json_line(finite(proof | keys)) + "\n")
    else:
        show(proof)
        if effects:
            show_keys(effects)
    if not proof["agrees"]:
        raise Halted(proof["sentence"])


def prove(config: ProveConfig) -> dict[str, Any]:
    """Train the first steps, without validation, logs and checkpoints; the result as ``run.json`` has it."""
    with TemporaryDirectory(prefix="llmft-prove-") as folder:
        return train_first_steps(config, Path(folder)).run.record["prove"]


def show(proof: dict[str, Any]) -> None:
    """Print a line for each step, what was not checked, and the result."""
    console = Console(highlight=False)
    table = Table(title="training, and its relative difference from the referee", title_justify="left")
    for name in ("step", "loss", "differs", "gradient norm", "differs", "learning rate", "differs", "rows"):
        table.add_column(name, justify="right")
    for step in proof["per_step"]:
        digits = {"loss": 6, "grad_norm": 6, "lr": 4}
        pairs = [(f"{step[name]:.{n}g}", f"{step['difference'][name]:.1g}") for name, n in digits.items()]
        table.add_row(str(step["step"]), *(text for pair in pairs for text in pair), str(len(step["rows"])))
    console.print(table)
    for what, number in proof["not_checked"].items():
        console.print(Text.assemble(("not checked: ", "bold"), printable(f"{what} ({number})")), soft_wrap=True)
    if proof["agrees"]:
        console.print(Text(proof["sentence"], style="green"), soft_wrap=True)


def show_keys(found: KeyEffects) -> None:
    """Print what each key does, and how many have no effect."""
    console = Console(highlight=False)
    table = Table(title="without the key, its default in its place", title_justify="left")
    for name in ("key", "effect"):
        table.add_column(name)
    for key, effect in found.effects.items():
        table.add_row(printable(key), Text(printable(effect.sentence(found.steps)), style=COLORS.get(effect.kind, "")))
    console.print(table)
    for line in (*found.notes(), found.sentence):
        console.print(Text(printable(line)), soft_wrap=True)
