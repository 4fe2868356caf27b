"""Forward and backward pass of LoRA with the common prefixes of a batch computed once, against without. Prints a table.

    python benchmarks/shared_prefix.py [--rows-folder ../shared/data] [--steps 8] [--rounds 3] [--dtype bfloat16] [--threads 1]

Both ways take the same batches of the same model in turns, in one process, and CPU time is measured, so that load on the machine
affects both. No dropout, or nothing would be shared. The losses of a batch must agree, or it ends with an error.
"""

import argparse
import io
import statistics
import sys
import tempfile
import time
from contextlib import redirect_stdout
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch

from llmft import build
from llmft.models.attention.kernels import Kernels
from llmft.models.forward import Forward
from llmft.utils.logging import quiet

# of each data set its file and the prompt that its rows are trained with
CASES = {
    "alpaca": ("alpaca.json", "alpaca"),
    "psychology": ("psychology.json", "chat"),
    "academic": ("academic.jsonl", "chat"),
}
WAYS = ("off", "exact")
TOLERANCE = {"float32": 1e-5, "bfloat16": 1e-2}  # of the loss


class Pass(NamedTuple):
    """What one batch took: CPU seconds of forward and backward pass, tokens of the model's input, and the mean loss."""

    seconds: float
    tokens: int
    loss: float


def main() -> int:
    given = options()
    torch.set_num_threads(given.threads)
    quiet()
    print(
        f"{given.model}, LoRA, {given.dtype}, {given.steps} batches of 8 in {given.rounds} rounds, {given.threads} threads\n"
    )
    print(
        "| rows | prompt | tokens without | with | | CPU s a batch without | with | median | rounds | loss differs by |"
    )
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    worst = max(measure(name, given) for name in given.cases)
    if worst > TOLERANCE[given.dtype]:
        print(f"FAULT: the losses with and without differ by up to {worst:.1g}", file=sys.stderr)
    return worst > TOLERANCE[given.dtype]


def measure(name: str, given: argparse.Namespace) -> float:
    """Print the row of a data set; the largest relative difference of two losses of a batch."""
    file, prompt = CASES[name]
    path = given.rows_folder / file if given.rows_folder else "sample"
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        parts = build([f"model={given.model}", f"data={name}", f"data.path={path}", f"prompt={prompt}", "peft=lora",
                       "peft.dropout=0", "model.dropout=0", f"model.dtype={given.dtype}", "trainer.accelerator=cpu", "data.batch_size=8",
                       f"output_dir={folder}"])  # fmt: skip
        forward = parts.module.forward_pass
        forwards = {way: type(forward)(forward.model, kernels(forward, way)) for way in WAYS}
        batches = list(islice(parts.datamodule.train_dataloader(), given.steps))
        forward.model.train()
        for one in forwards.values():
            passed(one, batches[0])  # the first batch is checked
        rounds = [taken(forwards, batches) for _ in range(given.rounds)]
    return shown(name, prompt, rounds)


def kernels(forward: Forward, way: Any) -> Kernels:
    """Those of a training on a CPU."""
    return Kernels(by_length=forward.kernels.by_length, varlen=True, shared_prefix=way)


def taken(forwards: dict[str, Forward], batches: list[Any]) -> dict[str, list[Pass]]:
    """A round: each batch with and without, in turns."""
    found: dict[str, list[Pass]] = {way: [] for way in WAYS}
    for number, batch in enumerate(batches):
        for way in WAYS if number % 2 else reversed(WAYS):
            found[way].append(passed(forwards[way], batch))
    return found


def passed(forward: Forward, batch: Any) -> Pass:
    tokens: list[int] = []
    hook = forward.model.register_forward_pre_hook(
        lambda _, __, given: tokens.append(given["input_ids"].numel()), with_kwargs=True
    )
    started = time.process_time()
    total, count = forward.loss_sum(dict(batch))
    total.backward()
    seconds = time.process_time() - started
    hook.remove()
    forward.model.zero_grad()
    return Pass(seconds, tokens[-1], total.item() / float(count))


def shown(name: str, prompt: str, rounds: list[dict[str, list[Pass]]]) -> float:
    tokens = [sum(one.tokens for one in rounds[0][way]) for way in WAYS]
    seconds = [[sum(one.seconds for one in found[way]) for way in WAYS] for found in rounds]
    ratios = [shared / without for without, shared in seconds]
    steps = len(rounds[0]["off"])
    off, exact = (statistics.median(column) / steps for column in zip(*seconds, strict=True))
    losses = [
        abs(one.loss - other.loss) / abs(one.loss)
        for found in rounds
        for one, other in zip(*(found[way] for way in WAYS), strict=True)
    ]
    print(
        f"| {name} | {prompt} | {tokens[0]:,} | {tokens[1]:,} | {tokens[1] / tokens[0]:.2f} | {off:.2f} | {exact:.2f} |"
        f" **{statistics.median(ratios):.2f}** | {min(ratios):.2f} to {max(ratios):.2f} | {max(losses):.1g} |",
        flush=True,
    )
    return max(losses)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; default: all")
    parser.add_argument(
        "--rows-folder", type=Path, help="holds the files of the data sets; default: the shipped samples"
    )
    parser.add_argument("--model", default="smollm2_135m", help="tiny_llama for a quick try")
    parser.add_argument("--dtype", choices=TOLERANCE, default="float32")
    parser.add_argument("--steps", type=int, default=8, help="batches of a round (8)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    given.cases = given.cases or list(CASES)
    if unknown := set(given.cases) - set(CASES):
        parser.error(f"{', '.join(unknown)}: no such case; of {', '.join(CASES)}")
    return given


if __name__ == "__main__":
    sys.exit(main())
