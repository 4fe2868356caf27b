"""Evaluation of a base and a tuned model: against transformers, its memory, and the order of its batches.

    python benchmarks/evaluation.py evaluate [--rows 50] [--rounds 3] [--new-tokens 32] [--dtype bfloat16] [--data alpaca]
    python benchmarks/evaluation.py memory
    python benchmarks/evaluation.py order [--rows-file FILE.jsonl] [--rows 72] [--new-tokens 16]

`evaluate`: answers and losses of base and tuned (a LoRA adapter) as `evaluate` computes them, without shared prefixes, and by
transformers' generate in batches of 8 in input order with the losses of padded batches; the answers must be equal in float32.
`memory`: peak by number of examples. `order`: generation in length-sorted token-budget batches against batches in input order.
Ratios within one run on one machine; both ways of batching take turns, and CPU time is measured, so that other load on the machine
matters little.
"""

import argparse
import io
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext, redirect_stdout
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir

from llmft import build
from llmft.config.paths import conf_dir
from llmft.config.schema import TrainConfig
from llmft.config.typed import typed
from llmft.data.batching.collate import generation_batch, training_batch
from llmft.data.datamodule import open_data
from llmft.data.eval_rows import first_rows
from llmft.evaluation import inference
from llmft.evaluation.evaluator import Evaluation
from llmft.generation import prefill
from llmft.generation.generator import Generator
from llmft.models.backbone.open import Backbone
from llmft.models.peft import trainable
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


def by_llmft(parts, rows, budget):
    """Answers and losses of base and tuned, as ``evaluate`` computes them."""
    forward, found = parts.module.forward_pass, []
    for base in (True, False):
        with trainable.base_of(forward.model) if base else nullcontext():
            found += inference.evaluate_rows(forward, parts.generator, rows, budget)
    return [row.answer.text for row in found], [row.nats for row in found]


def without_sharing(parts, rows, budget):
    """The same, each batch with all of its prompts and examples."""
    kernels, can_share = parts.module.forward_pass.kernels, prefill.can_share
    shared, kernels.shared_prefix, prefill.can_share = kernels.shared_prefix, "off", lambda _: False
    try:
        return by_llmft(parts, rows, budget)
    finally:
        kernels.shared_prefix, prefill.can_share = shared, can_share


def by_transformers(parts, rows, _):
    """The same by transformers alone: batches of 8 in input order."""
    model, codec, texts, nats = parts.module.model.eval(), parts.generator.codec, [], []
    for base in (True, False):
        for start in range(0, len(rows), 8):
            with model.disable_adapter() if base else nullcontext(), torch.inference_mode():
                some = rows[start : start + 8]
                texts += answered(model, codec, some, parts.generator.settings["max_new_tokens"])
                nats += losses(model, codec, some)
    return texts, nats


def answered(model, codec, rows, limit):
    inputs = generation_batch(
        [r.input_ids[: r.prompt_length] for r in rows], codec.tokenizer.pad_token_id, pad_left=True
    )
    ends = sorted(codec.stop_ids)
    out = model.generate(
        **inputs, max_new_tokens=limit, do_sample=False, eos_token_id=ends, pad_token_id=codec.tokenizer.pad_token_id
    )
    new = [ids[inputs["input_ids"].shape[1] :] for ids in out.tolist()]
    return [codec.decode(ids[: next((i for i, token in enumerate(ids) if token in ends), None)]) for ids in new]


def losses(model, codec, rows):
    batch = training_batch([[row] for row in rows], codec.tokenizer.pad_token_id)
    ids, mask, labels = batch["input_ids"], batch["attention_mask"], batch["labels"][:, 1:]
    logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1].float()
    found = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none", ignore_index=-100)
    return found.double().sum(1).tolist()


WAYS = {"transformers": by_transformers, "llmft without shared prefixes": without_sharing, "llmft": by_llmft}


def evaluate(options):
    """Print CPU seconds of each way, in turns; the answers must be equal in float32."""
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        parts = build([f"model={options.model}", "peft=lora", f"data={options.data}", f"data.path={options.path}", f"model.dtype={options.dtype}",
                       "trainer.accelerator=cpu", "data.max_answer_tokens=512", f"generation.max_new_tokens={options.new_tokens}", f"output_dir={folder}"])  # fmt: skip
        random_adapter(parts.module.model)
    rows = first_rows(parts.datamodule, options.rows, "train").encoded
    budget = parts.cfg.evaluate.batch_tokens
    times, found = {name: [] for name in WAYS}, {}
    for _ in range(options.rounds):
        for name, way in WAYS.items():
            started = time.process_time()
            found[name] = way(parts, rows, budget)
            times[name].append(time.process_time() - started)
    lengths = [row.prompt_length for row in rows]
    print(
        f"{options.model}, {options.dtype}, {len(rows)} rows of {options.data}, base and tuned, prompts of {min(lengths)} to {max(lengths)} tokens,"
        f" at most {options.new_tokens} new ones, {torch.get_num_threads()} threads\n\n| | CPU seconds, median | of transformers | rounds |\n|---|---:|---:|---|"
    )
    for name, values in times.items():
        ratios = [a / b for a, b in zip(values, times["transformers"], strict=True)]
        each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"| {name} | {statistics.median(values):.1f} | {statistics.median(ratios):.2f} | {each} |")
    texts, nats = zip(*found.values(), strict=True)
    same = [sum(one == other for one, other in zip(some, texts[0], strict=True)) for some in texts]
    worst = max(abs(a - b) / max(b, 1.0) for some in nats for a, b in zip(some, nats[0], strict=True))
    print(
        f"\nanswers equal to those of transformers: {same[1]} and {same[2]} of {same[0]}; losses differ by at most {worst:.1g}"
    )
    if options.dtype == "float32" and (min(same) < same[0] or worst > 1e-3):
        sys.exit("FAULT: answers or losses differ")


def random_adapter(model):
    """An adapter that does something: base and tuned answer differently."""
    torch.manual_seed(0)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.02)


WHAT = {"evaluate": evaluate, "memory": lambda _: memory(), "order": speed}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", help=f"of {', '.join(WHAT)}; default: all")
    parser.add_argument("--rows-file", type=Path, default=OPENORCA, help="of order")
    parser.add_argument("--data", default="support", help="of evaluate")
    parser.add_argument("--path", default="sample", help="of evaluate: a file of the data set")
    parser.add_argument("--model", default="smollm2_135m")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of evaluate")
    parser.add_argument("--rows", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        memory_of(options.child)
    for name in () if options.child else options.what or WHAT:
        WHAT[name](options)
