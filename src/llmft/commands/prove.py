"""``prove``: take the first optimizer steps of a training, and let a referee compute them again."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from omegaconf import DictConfig
from rich.table import Table
from rich.text import Text

from llmft.config.auto_values import resolve_auto
from llmft.config.schema import ProveConfig
from llmft.config.validate import check
from llmft.models.architecture_check import architecture_faults
from llmft.models.backbone.auto import with_lora_targets
from llmft.runs.directory import RunDirectory
from llmft.training.build import build
from llmft.training.trainer import build_trainer
from llmft.utils.console import Console
from llmft.utils.device import check_accelerator
from llmft.utils.errors import Halted, UserError
from llmft.utils.json import finite
from llmft.utils.logging import log_to, quiet
from llmft.utils.signals import as_interrupt
from llmft.utils.text import json_line, printable

# Callbacks of llmft that the steps of a training depend on; the others write, show or generate.
COMPUTING = ("unfreezing", "nan_guard", "gradient_clipping")


def main(cfg: DictConfig) -> None:
    """Train the first steps in a temporary folder, print what the referee found.

    Raises:
        UserError: The referee cannot follow this training.
        Halted: Training and referee part.
    """
    quiet()
    log_to(None)
    config = check(cfg, ProveConfig, architecture=architecture_faults)
    if config.prove.steps == 0:
        raise UserError("prove.steps=0: nothing to prove; pass prove.steps=20")
    check_accelerator(config.trainer)
    config = with_lora_targets(resolve_auto(config)[0])
    proof = prove(config)
    if config.format == "json":
        Console(soft_wrap=True).file.write(json_line(finite(proof)) + "\n")
    else:
        show(proof)
    if not proof["agrees"]:
        raise Halted(proof["sentence"])


def prove(config: ProveConfig) -> dict[str, Any]:
    """Train the first steps, without validation, logs and checkpoints; the result as ``run.json`` has it."""
    with TemporaryDirectory(prefix="llmft-prove-") as folder:
        run = RunDirectory(Path(folder))
        parts = build(first_steps(config), run)
        callbacks = {name: callback for name, callback in parts.named_callbacks.items() if name != "checkpoints"}
        trainer = build_trainer(parts.cfg, run, callbacks, parts.datamodule, None)
        with as_interrupt():
            trainer.fit(parts.module, datamodule=parts.datamodule)
        return run.record["prove"]


def first_steps(config: ProveConfig) -> ProveConfig:
    """The config without what changes no step: loggers, checkpoints, validation, and callbacks that write or show."""
    callbacks = {
        name: callback.node()
        for name, callback in config.callbacks.items()
        if callback is not None and (name in COMPUTING or not callback.target.startswith("llmft."))
    }
    off = {"trainer.enable_checkpointing": False, "trainer.limit_val_batches": 0, "trainer.val_check_interval": 1.0}
    return config.replaced({"callbacks": callbacks, "logger": {}, "report.reference_curve": None, **off})


def show(proof: dict[str, Any]) -> None:
    """Print a line for each step, what was not checked, and the result."""
    console = Console(highlight=False)
    table = Table(title="training, and its relative difference from the referee", title_justify="left")
    for name in ("step", "loss", "differs", "gradient norm", "differs", "learning rate", "differs", "rows"):
        table.add_column(name, justify="right")
    for step in proof["per_step"]:
        pairs = [(f"{step[name]:.6g}", f"{step['difference'][name]:.1g}") for name in ("loss", "grad_norm", "lr")]
        table.add_row(str(step["step"]), *(text for pair in pairs for text in pair), str(len(step["rows"])))
    console.print(table)
    for what, number in proof["not_checked"].items():
        console.print(Text.assemble(("not checked: ", "bold"), printable(f"{what} ({number})")), soft_wrap=True)
    if proof["agrees"]:
        console.print(Text.assemble((f"{proof['sentence']}", "green")), soft_wrap=True)
