"""What makes a training smaller, the cheapest change first."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from omegaconf import DictConfig, OmegaConf

from llmft.config.paths import conf_dir

MIB = 2**20


@dataclass(frozen=True)
class Suggestion:
    """Overrides, and what they cost.

    Attributes:
        keys: Key to value; a group (``peft``) takes a name.
        price: In words.
        peak: Bytes that it leads to, once known.
        fits: Whether that is little enough.
    """

    keys: dict[str, Any]
    price: str
    peak: int = 0
    fits: bool = True

    def __str__(self) -> str:
        """As overrides, with what they lead to and cost."""
        enough = "" if self.fits else "; still too much, take a smaller model or shorter rows as well"
        return f"{self.overrides} ({self.peak / MIB:,.0f} MiB; {self.price}{enough})"

    @property
    def overrides(self) -> str:
        """As on a command line."""
        return " ".join(f"{key}={str(v).lower() if isinstance(v, bool) else v}" for key, v in self.keys.items())

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {"overrides": self.overrides, "peak": self.peak, "price": self.price, "fits": self.fits}

    def apply(self, cfg: DictConfig) -> DictConfig:
        """The config with it."""
        changed = cfg.copy()
        for key, value in self.keys.items():
            if key == "peft":
                rate, changed.peft = cfg.optim.lr, load_group("peft", value)
                changed.optim.lr = rate
            else:
                OmegaConf.update(changed, key, value)
        return changed

    @staticmethod
    def first_that_fits(tried: Iterable[tuple["Suggestion", int]], goal: float) -> "Suggestion | None":
        """The first change whose peak is within the goal; without one, that of the smallest peak."""
        seen = []
        for change, peak in tried:
            seen.append(replace(change, peak=peak, fits=peak <= goal))
            if peak <= goal:
                return seen[-1]
        return min(seen, key=lambda change: change.peak, default=None)


def suggest(cfg: DictConfig) -> Iterator[Suggestion]:
    """Suggestions to a training, from those that cost a little time to those that change what is trained."""
    smaller = list(_smaller_batches(cfg))
    checkpointing = {"model.gradient_checkpointing": True}
    for keys in smaller:
        yield Suggestion(keys, "the same numbers, a little slower")
    if not cfg.model.gradient_checkpointing:
        yield Suggestion(checkpointing, "the same numbers, about a third more time")
        for keys in smaller[-1:]:
            yield Suggestion(checkpointing | keys, "the same numbers, about a third more time")
    else:
        checkpointing = {}
    least = (smaller[-1] if smaller else {}) | checkpointing
    for name, method in (("lora", "none"), ("qlora", "lora")):
        if (
            cfg.peft.method in (method, "none")
            and name != cfg.peft.name
            and (conf_dir() / "peft" / f"{name}.yaml").exists()
        ):
            yield Suggestion({"peft": name}, "trains other weights: a little less is learnt")
            yield Suggestion({"peft": name} | least, "trains other weights: a little less is learnt, and slower")


def _smaller_batches(cfg: DictConfig) -> Iterator[dict[str, Any]]:
    """Half the batch and twice the window compute the same, down to a line."""
    size, window = cfg.data.batch_size, cfg.trainer.accumulate_grad_batches
    if cfg.data.batching == "tokens":
        if cfg.data.tokens_per_batch >= 2:
            yield {
                "data.tokens_per_batch": cfg.data.tokens_per_batch // 2,
                "trainer.accumulate_grad_batches": 2 * window,
            }
        return
    while size % 2 == 0:
        size, window = size // 2, 2 * window
        yield {"data.batch_size": size, "trainer.accumulate_grad_batches": window}


def load_group(name: str, option: str) -> DictConfig:
    """An option of a group, with those that it is made of."""
    cfg = OmegaConf.load(conf_dir() / name / f"{option}.yaml")
    assert isinstance(cfg, DictConfig)
    parents = [load_group(name, parent) for parent in cfg.pop("defaults", []) if parent != "_self_"]
    merged = OmegaConf.merge(*parents, cfg)
    assert isinstance(merged, DictConfig)
    return merged
