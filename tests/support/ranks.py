"""A training in two processes, as torchrun starts them, without importing the libraries in each."""

import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.conftest import forked


def two_ranks(*arguments: str, cwd: Path) -> list[subprocess.CompletedProcess[str]]:
    """Run a command line in both ranks of a node; returns what they printed.

    Args:
        arguments: The command line, with ``output_dir`` and ``trainer.devices=2``.
        cwd: The working directory of both.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    node = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "none"}
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = [node | address | {"RANK": rank, "LOCAL_RANK": rank} for rank in ("0", "1")]
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda rank: forked(*arguments, cwd=cwd, environment=rank), ranks))
