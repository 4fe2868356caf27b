"""Write the tables of models.md: parameters, license, memory by ``estimate``, source of the configuration.

    python docs/make_models.py

Memory is that of weights, gradients and optimizer states, as ``estimate`` counts it on the meta device, for the configurations of
tests/fixtures/published_models.yaml; nothing is downloaded.
"""

import re
from pathlib import Path
from typing import Any

import transformers
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from llmft.config.paths import conf_dir
from llmft.config.schema import TrainConfig
from llmft.config.typed import typed
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


class Outline:
    """A backbone of which only the configuration is known."""

    def __init__(self, model: Any, config: Any) -> None:
        self.model, self.config, self.family = model, config, family_of(model)


def memory(name: str, entry: dict[str, Any], method: str) -> float:
    """GiB on a GPU, without activations."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = typed(compose("train", overrides=[f"model={name}", *COMMON, *METHODS[method]]), TrainConfig).config
    config = getattr(transformers, entry["config_class"])(**entry["config"])
    outline = MetaModel(cfg, Outline(cfg.model, config))  # pyright: ignore[reportArgumentType]
    states = 8 * sum(p.numel() for p in outline.trained)  # AdamW: two of float32
    total = outline.weights() + outline.gradients() + states
    if entry.get("untied_head"):  # of a T5, known once its file is read; full fine-tuning trains it
        total += outline.model.get_output_embeddings().weight.numel() * {"qlora": 4, "lora": 2, "full": 16}[method]
    return total / GIB


def rows(family: str) -> list[str]:
    """The rows of a family's table."""
    found = []
    for name, entry in PUBLISHED.items():
        text = (conf_dir() / "model" / f"{name}.yaml").read_text(encoding="utf-8")
        keys = yaml.safe_load(text)
        if f"_{family}" not in keys["defaults"]:
            continue
        size = re.search(r"^# ([\d.]+[MB])", text, re.MULTILINE)
        assert size
        sizes = " | ".join(f"{memory(name, entry, method):.1f}" for method in METHODS)
        source = entry["source"].replace("|", "\\|")
        found.append(f"| `{name}` | {size[1]} | {keys.get('license') or 'see its card'} | {sizes} | {source} |")

    return found


def main() -> None:
    """Replace the rows between the marks of the page."""
    page = PAGE.read_text(encoding="utf-8")
    for family in ("seq2seq", "causal"):
        start, end = f"<!-- {family} -->\n", f"<!-- end of {family} -->\n"
        head, _, rest = page.partition(start)
        _, _, tail = rest.partition(end)
        table = [
            "| `model=` | parameters | license | QLoRA | LoRA | full | configuration from |",
            "|---|---|---|---|---|---|---|",
            *rows(family),
        ]
        page = head + start + "\n".join(table) + "\n" + end + tail
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
