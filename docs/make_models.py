"""Write the tables of models.md: parameters, license, memory by ``estimate``, source of the configuration; cards.

    python docs/make_models.py

Memory is that of weights, gradients and optimizer states, as ``estimate`` counts it on the meta device, for the configurations of
tests/fixtures/published_models.yaml; nothing is downloaded. The tables of cards add the activations of one sequence. Run it where
there is no GPU: then one with bfloat16 is assumed. It takes minutes.
"""

import re
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import transformers
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from llmft.config.auto_values import resolve_auto
from llmft.config.paths import conf_dir
from llmft.config.schema import TrainConfig
from llmft.config.typed import typed
from llmft.data.batching.collate import training_batch
from llmft.data.tokenization.codec import EncodedExample
from llmft.estimate.gpu import CARDS, CONTEXT_BYTES, FRAGMENTED, smallest_card
from llmft.estimate.meta_model import MetaModel
from llmft.models.backbone.load import family_of, max_positions

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/models.md"
PUBLISHED: Any = yaml.safe_load((ROOT / "tests/fixtures/published_models.yaml").read_text(encoding="utf-8"))
COMMON = ("trainer=gpu", "model.gradient_checkpointing=true")
METHODS = {"qlora": "peft=qlora", "lora": "peft=lora", "full": "peft=none"}
GIB = 2**30
# Tokens of a sequence; of an encoder-decoder those of the source, with an answer of a quarter as many.
TOKENS = {"seq2seq": (512, 1024, 4096), "causal": (512, 2048, 8192, 32_768)}


class Outline:
    """A backbone of which only the configuration is known."""

    def __init__(self, model: Any, config: Any) -> None:
        self.model, self.config, self.family = model, config, family_of(model)


@cache
def config_of(name: str, method: str) -> TrainConfig:
    """The training config of a model with a method; what is ``auto``, as a GPU with bfloat16 resolves it."""
    GlobalHydra.instance().clear()
    with TemporaryDirectory() as folder, initialize_config_dir(str(conf_dir()), version_base="1.3"):
        architecture(PUBLISHED[name]).save_pretrained(folder)  # whose attention decides the kernel
        overrides = [f"model={name}", f"model.path={folder}", *COMMON, METHODS[method]]
        cfg = typed(compose("train", overrides=overrides), TrainConfig).config
        return resolve_auto(cfg)[0]


def architecture(entry: dict[str, Any], layers: int | None = None) -> Any:
    """The transformers config of a published model; of a causal one, with another number of layers if that is given."""
    depth = {"num_hidden_layers": layers} if layers else {}
    config = getattr(transformers, entry["config_class"])(**entry["config"] | depth)
    if config.is_encoder_decoder and getattr(config, "decoder_start_token_id", None) is None:
        config.decoder_start_token_id = 0  # T5's
    return config


@lru_cache(maxsize=2)
def outlined(name: str, method: str, layers: int | None = None) -> MetaModel:
    """A published model with a method; of another number of layers if that is given."""
    cfg = config_of(name, method)
    config = architecture(PUBLISHED[name], layers)
    return MetaModel(cfg, Outline(cfg.model, config))  # pyright: ignore[reportArgumentType]


def of_whole(name: str, method: str, measured: Callable[[MetaModel], list[int]]) -> list[int]:
    """What is measured of a model, in bytes; of a causal one, from two shallow ones, because that is ten times faster.

    With gradient checkpointing each layer but the first, whose input needs no gradient, adds as much as the one before. A test
    compares the result with the whole model's.
    """
    if config_of(name, method).model.family == "seq2seq":
        return measured(outlined(name, method))
    more = architecture(PUBLISHED[name]).num_hidden_layers - 2
    two, three = (measured(outlined(name, method, layers)) for layers in (2, 3))
    return [a + more * (b - a) for a, b in zip(two, three, strict=True)]


@cache
def held(name: str, method: str) -> int:
    """Bytes of weights, gradients and optimizer states of a model."""
    return of_whole(name, method, lambda outline: [states(outline, PUBLISHED[name])])[0]


def states(outline: MetaModel, entry: dict[str, Any]) -> int:
    """Bytes of weights, gradients and optimizer states."""
    total = (
        outline.weights() + outline.gradients() + 8 * sum(p.numel() for p in outline.trained)
    )  # AdamW: two of float32
    if entry.get("untied_head"):  # of a T5, known once its file is read; full fine-tuning trains it
        head = outline.model.get_output_embeddings().weight
        total += head.numel() * (head.element_size() + 12 * (outline.cfg.peft.method == "none"))
    return total


def example(tokens: int, *, joined: bool) -> EncodedExample:
    """An example of a number of tokens, each with a loss: prompt and answer joined, or a source and an answer of a quarter."""
    answer = tokens if joined else tokens // 4
    return EncodedExample([1] * tokens, [1] * answer, prompt_length=1, answer_length=answer, supervised=answer)


def by_pass(outline: MetaModel, lengths: Sequence[int]) -> list[int]:
    """Peak bytes of the activations of one sequence, for each number of tokens: of the forward, then of the backward pass."""
    joined = outline.cfg.model.family == "causal"
    batches = [training_batch([[example(tokens, joined=joined)]], 0) for tokens in lengths]
    return [size for batch in batches for size in outline.activations_by_pass(batch)]


def activations(name: str, method: str, lengths: Sequence[int]) -> list[int]:
    """Peak bytes of the activations of one sequence, for each number of tokens."""
    # each pass for itself: the peak of a shallow model may be in the other one
    sizes = of_whole(name, method, lambda outline: by_pass(outline, lengths))
    return [max(pair) for pair in zip(sizes[::2], sizes[1::2], strict=True)]


def card(name: str, method: str, lengths: Sequence[int]) -> str:
    """The smallest card for each number of tokens, in GB; ``-`` where the model has not so many positions."""
    always = held(name, method) + CONTEXT_BYTES
    positions = max_positions(architecture(PUBLISHED[name])) or max(lengths)
    fitting = [tokens for tokens in lengths if tokens <= positions]
    sizes = [always + int((1 + FRAGMENTED) * size) for size in activations(name, method, fitting)]
    found = [str(smallest_card(size) or f">{max(CARDS)}") for size in sizes]
    return " · ".join(found + ["-"] * (len(lengths) - len(fitting)))


def card_row(name: str) -> str:
    """A row of a table of cards."""
    lengths = TOKENS[config_of(name, "lora").model.family]
    return f"| `{name}` | " + " | ".join(card(name, method, lengths) for method in METHODS) + " |"


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
        sizes = " | ".join(f"{held(name, method) / GIB:.1f}" for method in METHODS)
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
        cards = [card_row(name) for name in of_family(family)]
        page = replaced(page, f"{family} cards", "| `model=` | QLoRA | LoRA | full |", cards)
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
