"""Write the tables of models.md: parameters, license, memory by ``estimate``, source of the configuration; cards.

    python docs/make_models.py

Memory is that of weights, gradients and optimizer states, as ``estimate`` counts it on the meta device, for the configurations of
tests/fixtures/published_models.yaml; nothing is downloaded. The table of cards adds the activations of one sequence.
"""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from llmft.config.paths import conf_dir
from llmft.config.schema import TrainConfig
from llmft.config.typed import typed
from llmft.estimate.gpu import CONTEXT_BYTES, FRAGMENTED, smallest_card
from llmft.estimate.meta_model import MetaModel
from llmft.models.backbone.load import family_of

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/models.md"
PUBLISHED: Any = yaml.safe_load((ROOT / "tests/fixtures/published_models.yaml").read_text(encoding="utf-8"))
COMMON = (
    "trainer=gpu",
    "trainer.precision=bf16-mixed",
    "model.attention=sdpa",
    "model.padding=kept",
    "optim.fused=true",
)
METHODS = {
    "qlora": ("peft=qlora", "model.dtype=float32", "peft.compute_dtype=bfloat16"),
    "lora": ("peft=lora", "model.dtype=bfloat16"),
    "full": ("peft=none", "model.dtype=float32"),
}
GIB = 2**30
TOKENS = (512, 2048, 8192)


class Outline:
    """A backbone of which only the configuration is known."""

    def __init__(self, model: Any, config: Any) -> None:
        self.model, self.config, self.family = model, config, family_of(model)


@cache
def config_of(name: str, method: str) -> TrainConfig:
    """The training config of a model with a method."""
    GlobalHydra.instance().clear()
    overrides = [f"model={name}", *COMMON, *METHODS[method], "model.gradient_checkpointing=true"]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return typed(compose("train", overrides=overrides), TrainConfig).config


def outlined(name: str, entry: dict[str, Any], method: str, layers: int | None = None) -> MetaModel:
    """A published model with a method; of another number of layers if that is given."""
    cfg = config_of(name, method)
    depth = {"num_hidden_layers": layers} if layers else {}
    config = getattr(transformers, entry["config_class"])(**entry["config"] | depth)
    return MetaModel(cfg, Outline(cfg.model, config))  # pyright: ignore[reportArgumentType]


def states(outline: MetaModel, entry: dict[str, Any], method: str) -> int:
    """Bytes of weights, gradients and optimizer states."""
    total = (
        outline.weights() + outline.gradients() + 8 * sum(p.numel() for p in outline.trained)
    )  # AdamW: two of float32
    if entry.get("untied_head"):  # of a T5, known once its file is read; full fine-tuning trains it
        total += outline.model.get_output_embeddings().weight.numel() * {"qlora": 4, "lora": 2, "full": 16}[method]
    return total


def activations(outline: MetaModel, tokens: int) -> int:
    """Bytes of the activations of one sequence."""
    ids = torch.zeros(1, tokens, dtype=torch.int64)
    return outline.activations({"input_ids": ids, "attention_mask": ids + 1, "labels": ids.clone(), "places": []})


def all_activations(name: str, entry: dict[str, Any], method: str, lengths: Sequence[int]) -> list[int]:
    """Those of a causal model of full depth for each number of tokens, from two shallow models.

    With gradient checkpointing each layer takes as much as the one before; a test compares the result with ``estimate``.
    """
    layers = getattr(transformers, entry["config_class"])(**entry["config"]).num_hidden_layers
    shallow = [outlined(name, entry, method, depth) for depth in (1, 2)]
    pairs = [[activations(outline, tokens) for outline in shallow] for tokens in lengths]
    return [one + (layers - 1) * (two - one) for one, two in pairs]


def card(name: str, entry: dict[str, Any], method: str) -> str:
    """The smallest card for each of ``TOKENS``."""
    held = states(outlined(name, entry, method), entry, method) + CONTEXT_BYTES
    sizes = [held + int((1 + FRAGMENTED) * size) for size in all_activations(name, entry, method, TOKENS)]
    return " · ".join(str(smallest_card(size) or "-") for size in sizes)


def card_row(name: str) -> str:
    """A row of the table of cards."""
    return f"| `{name}` | " + " | ".join(card(name, PUBLISHED[name], method) for method in METHODS) + " |"


def of_family(family: str) -> list[str]:
    """The names of the published models of a family, in the order of the file."""
    files = {name: (conf_dir() / "model" / f"{name}.yaml").read_text(encoding="utf-8") for name in PUBLISHED}
    return [name for name, text in files.items() if f"_{family}" in yaml.safe_load(text)["defaults"]]


def rows(family: str) -> list[str]:
    """The rows of a family's table."""
    found = []
    for name in of_family(family):
        entry, text = PUBLISHED[name], (conf_dir() / "model" / f"{name}.yaml").read_text(encoding="utf-8")
        keys = yaml.safe_load(text)
        size = re.search(r"^# ([\d.]+[MB])", text, re.MULTILINE)
        assert size
        sizes = " | ".join(f"{states(outlined(name, entry, method), entry, method) / GIB:.1f}" for method in METHODS)
        source = entry["source"].replace("|", "\\|")
        found.append(f"| `{name}` | {size[1]} | {keys.get('license') or 'see its card'} | {sizes} | {source} |")

    return found


def replaced(page: str, name: str, heading: str, rows: list[str]) -> str:
    """The page with another table between the marks of a name."""
    start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    head, _, rest = page.partition(start)
    _, _, tail = rest.partition(end)
    rule = "|---" * heading.count(" | ") + "|---|"
    return head + start + "\n".join([heading, rule, *rows]) + "\n" + end + tail


def main() -> None:
    """Replace the rows between the marks of the page."""
    page = PAGE.read_text(encoding="utf-8")
    heading = "| `model=` | parameters | license | QLoRA | LoRA | full | configuration from |"
    for family in ("seq2seq", "causal"):
        page = replaced(page, family, heading, rows(family))
    page = replaced(
        page, "cards", "| `model=` | QLoRA | LoRA | full |", [card_row(name) for name in of_family("causal")]
    )
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
