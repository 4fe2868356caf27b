"""Benchmark llmft against TRL's SFTTrainer and transformers' Seq2SeqTrainer in one run. Prints tables.

    python benchmarks/train.py [causal_lora ...] [--rows-folder ../shared/data] [--steps 8] [--rounds 3] [--write]

Each side trains in a process of its own, in its own environment, and takes its steps in turns with the others, so that load on
the machine affects all. llmft's side is a complete `python -m llmft` with its default callbacks; the peers' are their trainers.
All get the same model, tokenized examples, initial adapter, optimizer and batch size. Cases with `same=True` feed identical batches,
and fail if a step's losses differ by more than 1e-3. The time of a step is everything that a side does between two batches.
`make bench` installs the peers and runs this.
"""

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from training.cases import CASES, Case, fitted
from training.material import BATCH, prepare
from training.runner import Ended, measure, peer_python, started
from training.table import markdown, publish

from llmft.utils.device import bfloat16_units

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = {"cpu": DOCS / "performance.md", "cuda": DOCS / "gpu.md"}
ROWS_PER_PACK = 16  # generated rows of 75 words, about 260 tokens each, in 4,096
SHARED_NAMES = {"alpaca": "alpaca.json", "openorca": "openorca.jsonl", "psychology": "psychology.json"}


def main() -> int:
    given = options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the models' folder goes away
    faults = []
    with tempfile.TemporaryDirectory(prefix="llmft-benchmark-") as folder:
        for name in given.cases or [
            name for name, case in CASES.items() if given.device == "cuda" or not case.gpu_only
        ]:
            case = fitted(CASES[name], multiplies_bfloat16=bfloat16_units(gpu=given.device == "cuda") is not None)
            model = given.model or (case.gpu_model or case.model if given.device == "cuda" else case.model)
            path = str(given.rows_folder.resolve() / SHARED_NAMES[case.data]) if given.rows_folder else "sample"
            place = Path(folder, name)
            place.mkdir()
            try:
                table, wrong = measured(case, model, path, place, given)
            except Ended as reason:
                if not case.optional:
                    raise
                lines = str(reason).strip().splitlines()
                table, wrong = f"{case.title}: skipped. {' '.join(dict.fromkeys((lines[0], lines[-1])))}", []
            print(f"{table}\n", flush=True)
            faults += wrong
            if given.write:
                publish(PAGES[given.device], name, table)
            if given.tables:
                (given.tables / f"{name}.md").write_text(table + "\n", encoding="utf-8")
    for fault in faults:
        print(f"FAULT: {fault}", file=sys.stderr)
    return len(faults) > 0


def measured(case: Case, model: str, path: str, place: Path, given: argparse.Namespace) -> tuple[str, list[str]]:
    """The table of a case, and its faults.

    Args:
        case: What is compared.
        model: Its model.
        path: Path of its data.
        place: An empty folder.
        given: The command line.

    Raises:
        Ended: A side cannot start, or ends.
    """
    for side in case.sides:
        if side.of != "llmft":
            peer_python(side)  # before the model is made
    rows = ROWS_PER_PACK if case.words else BATCH
    material = prepare(case, model, path, rows * (given.warm_up + given.steps), place, given.models or place.parent)
    with started(case, material, place, given.device, given.threads) as runners:
        measure(runners, given.warm_up, given.rounds)
    return markdown(case, runners, model, path)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; default: all")
    parser.add_argument(
        "--rows-folder",
        type=Path,
        help="holds alpaca.json, openorca.jsonl and psychology.json; default: the shipped samples",
    )
    parser.add_argument("--model", help="a model in place of the case's, e.g. tiny_llama for a quick try")
    parser.add_argument("--steps", type=int, default=8, help="measured steps of 8 examples (8)")
    parser.add_argument("--warm-up", type=int, default=2, help="steps before them (2)")
    parser.add_argument("--rounds", type=int, default=3, help="turns per side (3)")
    parser.add_argument("--threads", type=int, help="threads per side; default: torch's choice")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--write", action="store_true", help="write the tables into docs/performance.md, or docs/gpu.md"
    )
    parser.add_argument("--models", type=Path, help="keep shapes and initial adapters in this folder, for later calls")
    parser.add_argument("--tables", type=Path, help="write each table into a file of this folder")
    given = parser.parse_args()
    if unknown := [name for name in given.cases if name not in CASES]:
        parser.error(f"no such case: {', '.join(unknown)}; there are {', '.join(CASES)}")
    return given


if __name__ == "__main__":
    sys.exit(main())
