"""Predicted against measured peak memory of complete trainings on this machine's CPU. Prints a table.

    python benchmarks/estimate.py [models=tiny_t5,tiny_gpt2,tiny_llama,smollm2_135m]

Each training runs completely (baseline, training, evaluation, export) in a process of its own; the measurement is the peak resident
set of that process, from its run.json. The prediction is that of `python -m llmft estimate` with the same overrides.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

MIB = 2**20
# few rows, so that a short training sees every batch, the largest too
COMMON = ("data.path=sample", "data.limit=24", "data.batch_size=4", "data.split.val=0.25", "trainer.max_epochs=1", "trainer.accelerator=cpu",
          "evaluate.rows=4", "questions=1", "generation.max_new_tokens=16", "callbacks.progress.leave=false", "seed=1")  # fmt: skip


def run(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "llmft", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout


def main() -> None:
    given = dict(argument.split("=", 1) for argument in sys.argv[1:])
    models = given.get("models", "tiny_t5,tiny_gpt2,tiny_llama,smollm2_135m").split(",")
    cases = [(m, p, c) for m in models for p in ("none", "lora") for c in (False, True)]
    console, worst = Console(width=110), 0.0
    table = Table(title="peak memory, MiB", box=None)
    for name in ("model", "peft", "checkpointing", "process", "predicted", "measured", "predicted / measured"):
        table.add_column(name, justify="left" if name in ("model", "peft") else "right")
    with tempfile.TemporaryDirectory() as folder:
        for number, (model, peft, checkpointing) in enumerate(cases):
            line = (
                *COMMON,
                f"model={model}",
                f"peft={peft}",
                f"model.gradient_checkpointing={str(checkpointing).lower()}",
            )
            found = json.loads(run("estimate", *line, "format=json").splitlines()[-1])
            run(*line, f"output_dir={folder}/{number}")
            record = json.loads(Path(folder, str(number), "run.json").read_text(encoding="utf-8"))
            predicted, measured = found["peak"] / MIB, record["peak_memory_mib"]["cpu"]
            worst = max(worst, abs(predicted / measured - 1))
            process = found["memory"]["process"] / MIB
            row = (f"{process:,.0f}", f"{predicted:,.0f}", f"{measured:,.0f}", f"{predicted / measured:.2f}")
            table.add_row(model, peft, str(checkpointing).lower(), *row)
            console.print(model, peft, checkpointing, *row)
    console.print(table)
    console.print(f"largest error: {100 * worst:.0f} %")


if __name__ == "__main__":
    main()
