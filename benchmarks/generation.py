"""Generation with a dynamic and a static KV cache, in turns. Prints a table.

    python benchmarks/generation.py [models=tiny_gpt2,tiny_llama,smollm2_135m] [rows=8] [tokens=32] [rounds=3]

The same prompts in the same length-sorted batch, greedy, EOS suppressed, so that both generate the same number of tokens; the answers must be
equal. On the CPU transformers compiles neither; on a GPU it compiles the step of a static cache, which the warm-up (not counted) pays for.
"""

import statistics
import sys
import time

import torch
from hydra import compose, initialize_config_dir
from rich.console import Console
from rich.table import Table

from llmft.config.paths import conf_dir
from llmft.config.schema import AnswerConfig
from llmft.config.typed import typed
from llmft.generation.generator import Generator
from llmft.generation.questions import sample_questions
from llmft.models.backbone.open import Backbone
from llmft.utils import device
from llmft.utils.logging import quiet

CACHES = ("dynamic", "static")


def generators(model: str, tokens: int) -> dict[str, Generator]:
    """One model with either cache."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = typed(compose("answer", overrides=[f"model={model}"]), AnswerConfig).config
    backbone = Backbone.open(cfg)
    loaded = backbone.load().to(device.default_device())
    settings = {"max_new_tokens": tokens, "min_new_tokens": tokens, "num_beams": 1, "do_sample": False, "seed": 0}
    ways = {"dynamic": {}, "static": {"cache_implementation": "static"}}
    return {
        name: Generator(loaded, backbone.codec, {**settings, **more, "batch_size": 64}) for name, more in ways.items()
    }


def main() -> None:
    given = dict(argument.split("=", 1) for argument in sys.argv[1:])
    rows, tokens, rounds = (int(given.get(key, number)) for key, number in (("rows", 8), ("tokens", 32), ("rounds", 3)))
    quiet()
    table = Table(
        title=f"{rows} answers of {tokens} tokens on {device.default_device()}, {torch.get_num_threads()} threads",
        box=None,
    )
    for name in ("model", "cache", "tokens/s", "CPU s", "CPU against dynamic"):
        table.add_column(name, justify="left" if name in ("model", "cache") else "right")
    for model in given.get("models", "tiny_gpt2,tiny_llama,smollm2_135m").split(","):
        by_cache = generators(model, tokens)
        contexts = [example.context for example in (sample_questions() * rows)[:rows]]
        seen: dict[str, list[tuple[float, float]]] = {name: [] for name in CACHES}
        answers = {}
        for number in range(rounds + 1):
            for name in CACHES:
                wall, cpu = time.perf_counter(), time.process_time()
                answers[name] = by_cache[name].answers(contexts)
                if number:  # the first round is the warm-up
                    seen[name].append((time.perf_counter() - wall, time.process_time() - cpu))
        if answers["static"] != answers["dynamic"]:
            print(f"{model}: the answers differ")
        medians = {
            name: [statistics.median(column) for column in zip(*found, strict=True)] for name, found in seen.items()
        }
        for name, (wall, cpu) in medians.items():
            table.add_row(
                model, name, f"{rows * tokens / wall:,.0f}", f"{cpu:.2f}", f"{cpu / medians['dynamic'][1]:.2f}"
            )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
