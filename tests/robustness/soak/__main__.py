"""``python -m tests.robustness.soak --kills 200 --seed 1``: kill runs at random moments, resume them, compare; exits with 1 if anything is wrong."""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"


def main() -> int:
    from tests.robustness.soak.soak import soak

    parser = argparse.ArgumentParser(prog="python -m tests.robustness.soak", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="signals that must have struck")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--minutes", type=float, help="stop then, however few it were")
    parser.add_argument("--folder", type=Path, help="where runs go; what went wrong stays there")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="soak-"))
    os.environ["LLMFT_CACHE"] = str(folder / "models")
    until = time.monotonic() + 60 * given.minutes if given.minutes else None
    tally = soak(given.kills, given.seed, folder.resolve(), jobs=given.jobs, until=until)
    signals = ", ".join(f"{count} {name}" for name, count in sorted(tally.signals.items()))
    print(f"\n{tally.total} kills ({signals}) in {tally.runs} runs; run.json read {tally.reads} times")
    print(f"{tally.missed} more were planned, but the run was over before the moment came")
    for title, counted in (("stage", tally.kills), ("innermost function of llmft when it fell", tally.places)):
        print(f"\n| {title} | kills |\n|---|---|")
        print("\n".join(f"| {name} | {count} |" for name, count in counted.most_common(25)))
    print(f"\n{len(tally.faults)} faults; seed {given.seed}, {folder}")
    return int(bool(tally.faults))


if __name__ == "__main__":
    sys.exit(main())
