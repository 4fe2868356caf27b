"""Memory of an evaluation by number of examples; generation in length-sorted token-budget batches against batches in input order.

    python benchmarks/evaluation.py [--rows-file FILE.jsonl] [--model smollm2_135m] [--rows 72] [--rounds 3] [--new-tokens 16]

Ratios within one run on one machine; both ways of batching take turns, and CPU time is measured, so that other load on the machine
matters little.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir

from llmft.config.paths import conf_dir
from llmft.config.schema import TrainConfig
from llmft.config.typed import typed
from llmft.data.datamodule import open_data
from llmft.evaluation.evaluator import Evaluation
from llmft.generation.generator import Generator
from llmft.models.backbone.open import Backbone
from llmft.utils.logging import quiet

OPENORCA = Path(__file__).resolve().parents[2] / "shared" / "data" / "openorca.jsonl"


def load(*overrides):
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return typed(compose("train", overrides=["output_dir=unused", *overrides]), TrainConfig).config


def prepared(cfg):
    """Data, generator and forward pass of a config, untrained."""
    quiet()
    data = open_data(cfg.data)
    data.read()
    backbone = Backbone(cfg.model, prompt=cfg.prompt, data=cfg.data)
    data.encode(backbone.codec)
    model = backbone.load()
    return data, Generator(model, backbone.codec, cfg.generation.node()), backbone.family(model)


def memory_of(rows):
    """Run one evaluation in this process; prints its peak memory in MiB, and seconds."""
    file = Path(f"/tmp/llmft-benchmark-{rows}.jsonl")
    texts = [
        f'{{"question": "What is {n} and {n + 1}?", "answer_keywords": ["{n}", "sum", "{2 * n + 1}"]}}'
        for n in range(rows + 2)
    ]
    file.write_text("\n".join(texts))
    cfg = load(
        "model=tiny_llama",
        "data=keyword_qa",
        f"data.path={file}",
        "generation.max_new_tokens=24",
        "evaluate.rows=null",
        "data.split={train:null,val:0,test:0}",
    )
    data, generator, module = prepared(cfg)
    evaluation = Evaluation(cfg.evaluate, module, data, generator, seed=0, split="train")
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    evaluation.evaluate_base("cpu")
    found = evaluation.evaluate_tuned("cpu")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(found["rows"], before // 1024, peak // 1024, round(time.perf_counter() - started, 1))
    file.unlink()


def memory():
    print(
        "| examples evaluated (tiny_llama, tuned and base) | MiB before | peak MiB | seconds |\n| ---: | ---: | ---: | ---: |"
    )
    for rows in (100, 1000):
        done = subprocess.run(
            [sys.executable, __file__, "--child", str(rows)], capture_output=True, text=True, check=True
        )
        print(f"| {' | '.join(done.stdout.split()[-4:])} |", flush=True)


class InInputOrder(Generator):
    """The same generator with batches of ``batch_size`` prompts in input order."""

    def batches(self, lengths):
        starts = range(0, len(lengths), self.batch_size)
        return [list(range(start, min(start + self.batch_size, len(lengths)))) for start in starts]


def speed(options):
    if not options.rows_file.is_file():
        print(f"speed: skipped, no such file: {options.rows_file}")
        return
    cfg = load(
        f"model={options.model}",
        "data=openorca",
        f"data.path={options.rows_file}",
        f"generation.max_new_tokens={options.new_tokens}",
        "data.too_long=drop",
    )
    data, generator, _ = prepared(cfg)
    rows = data.in_order()[: options.rows]
    prompts = [row.input_ids[: row.prompt_length] for row in rows]
    budget = generator.with_settings(batch_tokens=cfg.evaluate.batch_tokens)
    ordered = InInputOrder(generator.model, generator.codec, generator.given)
    times, same = {"input order": [], "sorted, token budget": []}, set()
    for _ in range(options.rounds):
        for name, one in (("input order", ordered), ("sorted, token budget", budget)):
            started = time.process_time()
            answers = one.continued(prompts)
            times[name].append(time.process_time() - started)
            same.add(tuple(answer.text for answer in answers))
    print(
        f"\n{options.model}, {len(prompts)} examples of {options.rows_file.name}, {options.new_tokens} new tokens, {torch.get_num_threads()} threads; prompts of {min(map(len, prompts))} to {max(map(len, prompts))} tokens"
    )
    print("| batches | median CPU seconds | batches run |\n| --- | ---: | ---: |")
    lengths = [len(prompt) for prompt in prompts]
    for (name, values), one in zip(times.items(), (ordered, budget), strict=True):
        print(f"| {name} | {statistics.median(values):.1f} | {len(list(one.batches(lengths)))} |")
    ratios = [a / b for a, b in zip(*times.values(), strict=True)]
    print(
        f"ratio {statistics.median(ratios):.2f} (rounds: {', '.join(f'{r:.2f}' for r in ratios)}); answers {'equal' if len(same) == 1 else 'DIFFER'}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows-file", type=Path, default=OPENORCA)
    parser.add_argument("--model", default="smollm2_135m")
    parser.add_argument("--rows", type=int, default=72)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--new-tokens", type=int, default=16)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        memory_of(options.child)
    else:
        memory()
        speed(options)
