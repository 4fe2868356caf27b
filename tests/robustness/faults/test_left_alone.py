"""Loader workers whose run is killed end as well, however they were started and whatever they were doing."""

import multiprocessing
import os
import signal
import time
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data._utils import worker

from tests.conftest import chat_row, write_rows
from tests.robustness.faults.test_told import nobody_is_left, there


def killed_in_its_loader(loader: Any, folder: Path, method: str) -> None:
    """In a process of its own: start two workers, and be killed while they begin, or when they have."""
    folder.mkdir()
    os.chdir(folder)
    if method == "forkserver":  # what Python 3.14 takes where nothing is said; one of its own, not the tests'
        for name in ("_forkserver_address", "_forkserver_alive_fd", "_forkserver_pid"):
            setattr(forkserver._forkserver, name, None)  # pyright: ignore[reportAttributeAccessIssue]
    else:
        begin = worker._worker_loop
        worker._worker_loop = lambda *given: (time.sleep(0.5), begin(*given))  # pyright: ignore[reportAttributeAccessIssue]
    multiprocessing.set_start_method(method, force=True)
    coming = iter(loader)
    if method == "forkserver":
        for _ in range(2):  # one of each
            next(coming)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("method", ["fork", pytest.param("forkserver", marks=pytest.mark.slow)])
def test_loader_workers_end_with_the_run_that_is_killed(method, module, tmp_path):
    """torch's own workers look for another parent than the one they began with: too late, or at a fork server."""
    write_rows(tmp_path / "rows.jsonl", *(chat_row(f"Q{n}", "A") for n in range(40)))
    loader = module("data=academic", "model=tiny_t5", "data.num_workers=2").train_dataloader()
    run = multiprocessing.get_context("fork").Process(
        target=killed_in_its_loader, args=(loader, tmp_path / "run", method)
    )
    run.start()
    run.join()
    assert run.exitcode == -signal.SIGKILL
    try:
        nobody_is_left(tmp_path / "run")
    finally:
        for process in there(tmp_path / "run"):
            os.kill(process, signal.SIGKILL)
