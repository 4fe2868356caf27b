"""Changes that reduce the memory of a training, the cheapest first."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from omegaconf import OmegaConf

from llmft.config.groups import group_config
from llmft.config.paths import conf_dir
from llmft.config.schema import TrainConfig
from llmft.utils.shell import arguments

MIB = 2**20


@dataclass(frozen=True)
class Suggestion:
    """Overrides that reduce memory, and their cost.

    Attributes:
        keys: Config keys and values; a group (``peft``) takes the name of an option.
        price: The cost in words.
        peak: Predicted peak in bytes, once known.
        fits: Whether the peak is low enough.
    """

    keys: dict[str, Any]
    price: str
    peak: int = 0
    fits: bool = True

    def __str__(self) -> str:
        """The overrides with their predicted peak and cost."""
        enough = "" if self.fits else "; still too much, also use a smaller model or shorter rows"
        return f"{self.overrides} ({self.peak / MIB:,.0f} MiB; {self.price}{enough})"

    @property
    def overrides(self) -> str:
        """The overrides as on a command line."""
        return arguments(self.keys.items())

    def as_json(self) -> dict[str, Any]:
        """All values as plain data."""
        return {"overrides": self.overrides, "peak": self.peak, "price": self.price, "fits": self.fits}

    def apply(self, cfg: TrainConfig) -> TrainConfig:
        """A copy of the config with the overrides applied."""
        options = (
            {"peft": OmegaConf.to_container(group_config("peft", self.keys["peft"]))} if "peft" in self.keys else {}
        )
        return cfg.replaced({**self.keys, **options})

    @staticmethod
    def first_that_fits(tried: Iterable[tuple["Suggestion", int]], goal: float) -> "Suggestion | None":
        """The first suggestion with a peak of at most ``goal`` bytes; if there is none, the one with the lowest peak."""
        seen = []
        for change, peak in tried:
            seen.append(replace(change, peak=peak, fits=peak <= goal))
            if peak <= goal:
                return seen[-1]
        return min(seen, key=lambda change: change.peak, default=None)


def suggest(cfg: TrainConfig) -> Iterator[Suggestion]:
    """Yield suggestions, from those that cost some time to those that change what is trained."""
    smaller = list(_smaller_batches(cfg))
    checkpointing = {"model.gradient_checkpointing": True}
    for keys in smaller:
        yield Suggestion(keys, "same results, slightly slower")
    if not cfg.model.gradient_checkpointing:
        yield Suggestion(checkpointing, "same results, about a third slower")
        for keys in smaller[-1:]:
            yield Suggestion(checkpointing | keys, "same results, about a third slower")
    else:
        checkpointing = {}
    least = (smaller[-1] if smaller else {}) | checkpointing
    for name, method in (("lora", "none"), ("qlora", "lora")):
        if (
            cfg.peft.method in (method, "none")
            and name != cfg.peft.name
            and (conf_dir() / "peft" / f"{name}.yaml").exists()
        ):
            yield Suggestion({"peft": name}, "trains fewer parameters, slightly lower quality")
            yield Suggestion({"peft": name} | least, "trains fewer parameters, slightly lower quality, and slower")


def _smaller_batches(cfg: TrainConfig) -> Iterator[dict[str, Any]]:
    """Half the batch size with twice the gradient accumulation, which gives the same result, down to a batch of one."""
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
