"""``estimate``: memory, steps and time of a training, before its weights are loaded."""

import json
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from rich.table import Table

from llmft.config import auto_values
from llmft.config.schema import EstimateConfig
from llmft.config.validate import check
from llmft.estimate.estimate import Estimate, estimate, load_encoded
from llmft.models.architecture_check import architecture_faults
from llmft.utils.console import Console
from llmft.utils.logging import log_to, quiet


def main(cfg: DictConfig) -> None:
    """Encode the data, build the model on the meta device, and print the estimate."""
    quiet()
    log_to(None)
    config = check(cfg, EstimateConfig, architecture=architecture_faults, elsewhere=is_elsewhere(cfg))
    if config.estimate.gpu_gib is not None:
        config = config.replaced({"trainer.accelerator": "gpu"})
    config, _ = auto_values.resolve_auto(config)
    data, backbone = load_encoded(config)
    found = estimate(config, data, backbone, gpu_gib=config.estimate.gpu_gib)
    measured = _probe(config, data, backbone, found) if config.estimate.probe else {}
    if config.format == "json":
        Console(highlight=False, soft_wrap=True, markup=False).print(json.dumps(found.as_json() | measured))
        return
    console = Console(highlight=False)
    console.print(found.table())
    for line in found.summary_lines():
        console.print(line, soft_wrap=True)
    if measured:
        console.print(_measured_table(measured))


def is_elsewhere(cfg: DictConfig) -> bool:
    """Whether the training is for a GPU that is not here; read before the config is checked."""
    gib, accelerator = (
        OmegaConf.select(cfg, key, throw_on_resolution_failure=False)
        for key in ("estimate.gpu_gib", "trainer.accelerator")
    )
    return gib is not None or (accelerator in ("gpu", "cuda") and not torch.cuda.is_available())


def _probe(config: EstimateConfig, data: Any, backbone: Any, found: Estimate) -> dict[str, Any]:
    from llmft.estimate import benchmark_steps

    return benchmark_steps.measure(config, data, backbone, steps=found.steps)


def _measured_table(measured: dict[str, Any]) -> Table:
    table = Table(title=f"measured, {measured['probe_steps']} steps")
    table.add_column("what")
    table.add_column("value", justify="right")
    for name, text in measured["shown"].items():
        table.add_row(name, text)
    return table
