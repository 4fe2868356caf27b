"""Processes of a run: the threads of each."""

import os
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from llmft.utils import distributed
from llmft.utils.distributed import follow, share_cores


@pytest.fixture(autouse=True)
def cores(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Twelve cores, and nothing said; this process's threads are put back."""
    before = torch.get_num_threads()
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)), raising=False)
    for name in ("OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK"):
        monkeypatch.delenv(name, raising=False)
    yield
    torch.set_num_threads(before)


def trainer(devices: int, num_nodes: int = 1) -> SimpleNamespace:
    return SimpleNamespace(devices=devices, num_nodes=num_nodes)


def test_each_process_gets_its_share_of_the_cores():
    assert "3 for each process (12 cores for 4 processes" in (share_cores(trainer(4)) or "")
    assert torch.get_num_threads() == 3


def test_more_processes_than_cores_get_one_each():
    share_cores(trainer(20))
    assert torch.get_num_threads() == 1


def test_one_process_is_left_as_it_is():
    torch.set_num_threads(5)
    assert share_cores(trainer(1)) is None
    assert torch.get_num_threads() == 5


def test_the_processes_of_a_node_share_it_and_not_those_of_all_nodes():
    share_cores(trainer(2, num_nodes=8))
    assert torch.get_num_threads() == 6


def test_what_the_user_says_wins(monkeypatch: pytest.MonkeyPatch):
    torch.set_num_threads(7)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert "7 for each process, by OMP_NUM_THREADS=7" in (share_cores(trainer(4)) or "")
    assert torch.get_num_threads() == 7


def test_cores_that_slurm_gave_a_task_are_not_shared(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "6")
    share_cores(trainer(4))
    assert torch.get_num_threads() == 6


def test_a_worker_says_nothing_of_a_run_that_has_gone(capsys):
    distributed.ignore_lost_readers(ConnectionResetError, ConnectionResetError(104, "reset by peer"), None)
    assert capsys.readouterr().err == ""
    distributed.ignore_lost_readers(ValueError, ValueError("broken"), None)
    assert "ValueError: broken" in capsys.readouterr().err


def test_a_process_whose_starter_is_gone_is_told():
    told = []
    follow(os.getppid() + 1, lambda: told.append(1))
    give_up = time.monotonic() + 60
    while not told and time.monotonic() < give_up:
        time.sleep(0.01)
    assert told
    assert sys.is_finalizing() is False
