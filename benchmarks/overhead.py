"""Overhead of a training step: default callbacks and logging, none, and a bare torch loop. Prints a table.

    python benchmarks/overhead.py [models=tiny_gpt2,smollm2_135m] [steps=12] [rounds=3] [threads=1] [KEY=VALUE for llmft ...]
    python benchmarks/overhead.py models=smollm2_135m steps=5 rounds=2      (two minutes)

The three train the same model on the same batches from the same weights, in one process and in turns, and must end with weights that are
equal to the last bit, or this fails. Gradient clipping is part of the computation and stays on in all of them. Validation, checkpoints and
samples happen between steps and are not included. Times are medians over the rounds, step by step, without the first step of a turn;
CPU time is that of the process. On a busy machine it too varies by more than the callbacks take, so the hooks are also timed one by one,
in a run of their own.
"""

import copy
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from rich.console import Console
from rich.table import Table

from llmft.callbacks.trainer_check import TrainerCheck
from llmft.config.paths import conf_dir
from llmft.config.schema import TrainConfig
from llmft.config.typed import typed
from llmft.data.datamodule import open_data
from llmft.generation.generator import Generator
from llmft.models.backbone.open import Backbone
from llmft.models.module import InstructionModule
from llmft.runs.directory import RunDirectory
from llmft.training import fit
from llmft.training.build import Parts
from llmft.utils.logging import quiet

COMMON = ("data=alpaca", "data.path=sample", "data.batch_size=8", "data.split.val=0", "data.split.test=0", "data.shuffle=false",
          "trainer.accelerator=cpu", "trainer.max_epochs=100", "scheduler=constant", "scheduler.warmup_steps=0")  # fmt: skip
# gradient clipping is part of the computation
CALLBACKS = [
    file.stem for file in (conf_dir() / "callbacks").glob("*.yaml") if file.stem not in ("default", "gradient_clipping")
]
HOOKS = (
    "on_train_batch_start",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)
Clock = tuple[float, float]


class Clocks(pl.Callback):
    """Records wall and CPU time at the end of each step."""

    def __init__(self) -> None:
        self.seen: list[Clock] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Runs after all other callbacks."""
        self.seen.append((time.perf_counter(), time.process_time()))


class Material:
    """Data, module and its initial weights, shared by all turns."""

    def __init__(self, overrides: list[str]) -> None:
        self.cfg = cfg = configured(overrides)
        self.data = open_data(cfg.data)
        self.data.read()
        self.backbone = backbone = Backbone.open(cfg)
        self.codec = backbone.codec
        self.data.encode(self.codec)
        torch.manual_seed(cfg.seed)
        self.model = backbone.load_adapted()
        schedule = partial(instantiate(cfg.scheduler.node()), total_steps=1000)
        self.module = InstructionModule(backbone.family(self.model), instantiate(cfg.optim.node()), schedule)
        self.module.attached = [TrainerCheck(cfg)]  # seeds the dropout of each turn
        self.first = copy.deepcopy(self.trained())

    def trained(self) -> dict[str, Any]:
        """Trainable parameters by name."""
        return {name: p.detach() for name, p in self.model.named_parameters() if p.requires_grad}

    def reset(self) -> None:
        """Restore the initial weights."""
        for name, weight in self.trained().items():
            weight.copy_(self.first[name])
        self.model.zero_grad(set_to_none=True)


def configured(overrides: list[str]) -> Any:
    """The config of a training."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return typed(compose("train", overrides=["output_dir=unused", *COMMON, *overrides]), TrainConfig).config


def watch(thing: Any, hook: str, spent: dict[str, float]) -> None:
    """Wrap a method so that its CPU time is added to ``spent``."""
    method, name = getattr(thing, hook), f"{type(thing).__name__}.{hook}"

    def timed(*args: Any) -> Any:
        started = time.process_time()
        result = method(*args)
        spent[name] = spent.get(name, 0.0) + time.process_time() - started
        return result

    setattr(thing, hook, timed)


def fitted(material: Material, overrides: list[str], steps: int, spent: dict[str, float] | None = None) -> list[Clock]:
    """Train with llmft; with ``spent``, add the CPU time of each hook of a step to it."""
    clocks = Clocks()
    with tempfile.TemporaryDirectory() as folder:
        cfg = configured([*overrides, f"trainer.max_steps={steps}", f"output_dir={folder}"])  # loggers write there, too
        run = RunDirectory(Path(folder))
        generator = Generator(material.model, material.codec, cfg.generation.node())
        parts = Parts(cfg, run, material.module, material.data, generator, material.backbone)
        callbacks: list[pl.Callback] = parts.trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
        if spent is not None:
            for callback, hook in product(callbacks, HOOKS):
                if getattr(type(callback), hook) is not getattr(pl.Callback, hook):
                    watch(callback, hook, spent)
        callbacks.append(clocks)
        fit.train(parts)
    return clocks.seen


def bare(material: Material, _: list[str], steps: int) -> list[Clock]:
    """The same training as a bare torch loop, without deterministic mode."""
    torch.use_deterministic_algorithms(False)
    pl.seed_everything(material.cfg.seed, verbose=False)
    weights = [p for p in material.model.parameters() if p.requires_grad]
    optimizer, seen = instantiate(material.cfg.optim.node())(weights), []
    material.module.train()
    while True:
        for batch in material.data.train_dataloader():
            total, tokens = material.module.forward_pass.loss_sum(batch)
            total.backward()
            for weight in weights:
                weight.grad.mul_(1 / int(tokens))
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            seen.append((time.perf_counter(), time.process_time()))
            if len(seen) == steps:
                return seen


def measured(model: str, steps: int, rounds: int, more: list[str]) -> dict[str, list[list[Clock]]]:
    """Wall and CPU seconds of each step, by way and round."""
    material = Material([f"model={model}", *more])
    ways: dict[str, tuple[Callable[..., list[Clock]], list[str]]] = {
        "bare loop of torch": (bare, []),
        "without callbacks and loggers": (fitted, ["logger=none", *(f"callbacks.{name}=null" for name in CALLBACKS)]),
        "default": (fitted, []),
    }
    found: dict[str, list[list[Clock]]] = {name: [] for name in ways}
    ends = []
    for _ in range(rounds):
        for name, (train, overrides) in ways.items():
            material.reset()
            seen = train(material, [f"model={model}", *more, *overrides], steps)
            found[name].append([(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(seen)])
            ends.append(copy.deepcopy(material.trained()))
    different = [name for name in ends[0] if not all(torch.equal(end[name], ends[0][name]) for end in ends)]
    if different:
        sys.exit(f"{model}: {len(different)} of {len(ends[0])} weights differ in the end, e.g. {different[0]}")
    return found


def hooks(model: str, steps: int, more: list[str]) -> Table:
    """CPU time per step of each hook of the default callbacks."""
    spent: dict[str, float] = {}
    seen = fitted(Material([f"model={model}", *more]), [f"model={model}", *more], steps, spent)
    step = (seen[-1][1] - seen[0][1]) / (steps - 1)
    table = Table(title=f"hooks of a step of {model}, CPU", box=None)
    for name in ("hook", "ms per step", "share"):
        table.add_column(name, justify="left" if name == "hook" else "right")
    rest = {"all": sum(spent.values()), **dict(sorted(spent.items(), key=lambda item: -item[1])[:5])}
    for name, seconds in rest.items():
        table.add_row(name, f"{1000 * seconds / steps:.2f}", f"{seconds / steps / step:.2%}")
    return table


def main() -> None:
    given = dict(argument.split("=", 1) for argument in sys.argv[1:])
    steps, rounds = int(given.pop("steps", 12)), int(given.pop("rounds", 3))
    models = given.pop("models", "tiny_gpt2,smollm2_135m").split(",")
    torch.set_num_threads(int(given.pop("threads", 1)))
    quiet()
    table = Table(title=f"a training step of 8 examples, {torch.get_num_threads()} threads", box=None)
    for name in ("model", "way", "wall ms", "CPU ms", "CPU against bare", "CPU against none"):
        table.add_column(name, justify="left" if name in ("model", "way") else "right")
    console, shares = Console(width=110), []
    for model in models:
        shares.append(hooks(model, steps, [f"{key}={value}" for key, value in given.items()]))
        found = measured(model, steps, rounds, [f"{key}={value}" for key, value in given.items()])
        # the median over the rounds for each step, then the sum over steps
        sums = {
            way: [
                sum(statistics.median(turn[step][clock] for turn in turns) for step in range(steps - 1))
                for clock in (0, 1)
            ]
            for way, turns in found.items()
        }
        base, none = (list(sums.values())[number][1] for number in (0, 1))
        for way, (wall, cpu) in sums.items():
            per = 1000 / (steps - 1)
            table.add_row(model, way, f"{wall * per:.1f}", f"{cpu * per:.1f}", f"{cpu / base:.3f}", f"{cpu / none:.3f}")
    console.print(table, *shares)


if __name__ == "__main__":
    main()
