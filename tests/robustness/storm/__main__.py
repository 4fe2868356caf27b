"""``python -m tests.robustness.storm --cases 500 --seed 1``: any command line, any broken input, any environment; exits with 1 if anything is wrong."""

import argparse
import os
import re
import sys
import tempfile
from functools import partial
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"


def main() -> int:
    from tests.robustness.storm.storm import cases, storm
    from tests.robustness.storm.world import build

    parser = argparse.ArgumentParser(prog="python -m tests.robustness.storm", description=__doc__)
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="only cases whose description matches this regular expression")
    parser.add_argument("--folder", type=Path, help="where cases run; what went wrong stays there")
    given = parser.parse_args()
    folder = (given.folder or Path(tempfile.mkdtemp(prefix="storm-"))).resolve()
    os.environ["LLMFT_CACHE"] = str(folder / "models")
    inputs = folder / "world" / "in"
    if not inputs.exists():
        build(folder / "world")
    chosen = [
        case
        for case in cases(inputs, 10**9 if given.only else given.cases, given.seed)
        if re.search(given.only, str(case))
    ]
    found = storm(chosen[: given.cases], inputs, folder, say=partial(print, flush=True))
    print(f"{min(len(chosen), given.cases)} cases, {len(found)} faults; seed {given.seed}, {folder}")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
