"""Trainings on a pretended CUDA device (tests/support/pretended_cuda): real numbers, and what a GPU would have been asked."""

from collections.abc import Mapping
from typing import Any

import pytest

from tests.support.pretended_cuda import library, process
from tests.support.pretended_cuda.process import Job, Result

pytestmark = pytest.mark.skipif(bool(library.why_not()), reason=str(library.why_not()))

DATA = ("data=alpaca", "data.path=sample", "data.limit=32", "data.batch_size=4")
SHORT = (
    "trainer.max_epochs=1",
    "questions=0",
    "baseline=false",
    "evaluate.rows=0",
    "report.write=false",
    "logger=none",
)
JOBS = {
    "packed": Job(("model=tiny_llama", "peft=lora", "data.batching=packed", "trainer=gpu", *DATA, *SHORT)),
    "cpu_positions": Job(
        ("model=tiny_llama", "peft=lora", "data.batching=packed", "model.attention=sdpa", "trainer=gpu", *DATA, *SHORT),
        "positions_on_the_cpu",
    ),
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Result]:
    """All jobs, run in one process."""
    return process.run(JOBS, tmp_path_factory.mktemp("pretended"))


def mismatches(result: Result) -> list[Any]:
    return [event for event in result.counts["events"] if event["kind"] == "mismatch"]


def test_no_operation_has_tensors_of_two_devices(results: Mapping[str, Result]) -> None:
    assert results["packed"].code == 0, results["packed"].output
    assert not mismatches(results["packed"])


def test_a_tensor_that_is_left_on_the_cpu_is_found(results: Mapping[str, Result]) -> None:
    assert results["cpu_positions"].code == 2  # the check of packing meets it first
    assert "Expected all tensors to be on the same device" in results["cpu_positions"].output
    assert mismatches(results["cpu_positions"])
