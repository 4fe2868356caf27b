"""Run llmft in this process with a disk that is full from the second checkpoint on; Lightning starts this again for each rank."""

import errno
import os
import sys
from pathlib import Path


def main() -> None:
    from llmft import __main__

    real = os.fsync

    def fsync(handle: int) -> None:
        file = Path(f"/proc/self/fd/{handle}").readlink()
        if file.name == "last.ckpt.tmp" and file.with_suffix("").exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    os.fsync = fsync
    sys.exit(__main__.run(sys.argv[1:]))


main()
