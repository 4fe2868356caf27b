"""``python -m tests.support.pretended_cuda [COMMAND] key=value ...``: an llmft command line on the pretended device."""

import sys

from tests.support.pretended_cuda import library


def main() -> None:
    if reason := library.why_not():
        sys.exit(f"no pretended device: {reason}")
    library.load()
    from tests.support.pretended_cuda import cuda
    from tests.support.pretended_cuda.counts import COUNTS
    from tests.support.pretended_cuda.table import table

    cuda.install()
    from llmft.__main__ import run

    code = run(sys.argv[1:])
    print(table(COUNTS.as_dict()))
    sys.exit(code)


if __name__ == "__main__":
    main()
