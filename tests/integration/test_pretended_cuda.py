"""Trainings on a pretended CUDA device (tests/support/pretended_cuda): real numbers, and what a GPU would have been asked.

All of them run in one process of their own. Each assert is one function, and a planted fault shows that it can fail.
"""

import csv
from collections import Counter
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support import twins
from tests.support.pretended_cuda import library, process
from tests.support.pretended_cuda.process import Job, Result
from tests.support.pretended_cuda.table import cause, in_steps, steady

pytestmark = pytest.mark.skipif(bool(library.why_not()), reason=str(library.why_not()))

DATA = ("data=alpaca", "data.path=sample", "data.limit=24", "data.batch_size=2", "logger=none", "report.write=false")
STEPS = (
    *("trainer.max_epochs=9", "trainer.max_steps=5", "trainer.log_every_n_steps=100"),
    *("callbacks.samples.number=0", "questions=0", "baseline=false", "evaluate.rows=0"),
)
DTYPES = {"32-true": "float32", "bf16-mixed": "bfloat16", "16-mixed": "float16"}


class Case(NamedTuple):
    """A training of five steps."""

    model: str
    peft: str
    batching: str
    precision: str

    def job(self, bart: list[str], *more: str, faults: tuple[str, ...] = ()) -> Job:
        model = bart if self.model == "bart" else [f"model=tiny_{self.model}"]
        options = (f"peft={self.peft}", f"data.batching={self.batching}", f"trainer.precision={self.precision}")
        return Job((*model, *options, "trainer=gpu", *DATA, *STEPS, *more), faults)


# Each code path once; the slow test runs all products.
FAST = {
    "-".join(case): case
    for case in (
        Case("llama", "lora", "rows", "bf16-mixed"),
        Case("llama", "none", "packed", "32-true"),
        Case("t5", "none", "rows", "32-true"),
        Case("t5", "lora", "packed", "bf16-mixed"),
        Case("bart", "none", "packed", "16-mixed"),
        Case("bart", "lora", "rows", "32-true"),
        Case("gpt2", "none", "rows", "bf16-mixed"),
        Case("gpt2", "lora", "packed", "16-mixed"),
        Case("gemma", "none", "packed", "bf16-mixed"),
        Case("gemma", "lora", "rows", "32-true"),
    )
}
ALL = {
    "-".join(values): Case(*values)
    for values in product(("llama", "t5", "bart", "gpt2", "gemma"), ("none", "lora"), ("rows", "packed"), DTYPES)
    if values[0] != "t5" or values[3] != "16-mixed"  # refused: T5 overflows in float16
}
LORA = FAST["llama-lora-rows-bf16-mixed"]


class Wait(NamedTuple):
    """How often the host may wait at a place.

    Attributes:
        per: ``batch``, ``window`` (an optimizer step), or ``check`` (of all weights, in steps 1, 2, 4, 8, ...).
        most: So often.
        reason: For what.
    """

    per: str
    most: int
    reason: str


# What may be waited for in a training step. An entry that no longer occurs, or less often, fails the test too.
ALLOWED = {
    ("tolist", "utils/device.py:floats"): Wait("window", 1, "loss, number of labels and gradient norm"),
    ("tolist", "diagnostics/idle_weights.py:IdleWeights._drop_nonzero"): Wait(
        "check", 1, "which weights have a gradient"
    ),
    ("tolist", "diagnostics/idle_weights.py:IdleWeights._drop_changed"): Wait("check", 1, "which weights have changed"),
    ("item", "lightning/pytorch/plugins/precision/amp.py:MixedPrecision.optimizer_step"): Wait(
        "window", 1, "whether float16 overflowed"
    ),
}
# What transformers waits for where answers are generated: in each step, or in each call of generate. llmft adds none.
GENERATION = "transformers/generation/utils.py"
WAITS_OF_ANSWERS = {
    ("item", f"{GENERATION}:StopCheck.__call__"): "step",
    (
        "copy to device, pageable",
        f"{GENERATION}:GenerationMixin._prepare_special_tokens.<locals>._tensor_or_none",
    ): "call",
    ("item", f"{GENERATION}:GenerationMixin._prepare_special_tokens"): "call",
    ("item", f"{GENERATION}:GenerationMixin.generate"): "call",
    ("item", f"{GENERATION}:GenerationMixin._get_logits_processor"): "call",
}
# Calls by model and batching in float32, where no kernel attends by the lengths of examples.
HIDING = "not causal, mask of 4 dimensions, bool"
BIAS = "not causal, mask of 4 dimensions, {dtype}"  # T5's relative positions: in every dtype
ATTENTION = {
    ("llama", "rows"): {"causal, no mask, grouped"},
    ("llama", "packed"): {HIDING},
    ("t5", "rows"): {BIAS},
    ("t5", "packed"): {BIAS},
    ("bart", "rows"): {HIDING, "causal, no mask"},  # the padding of the sources
    ("bart", "packed"): {"not causal, mask of 4 dimensions, float32"},
    ("gpt2", "rows"): {"causal, no mask"},
    ("gpt2", "packed"): {HIDING},
    ("gemma", "rows"): {HIDING, "causal, no mask, grouped"},  # a window in every other layer
    ("gemma", "packed"): {HIDING},
}
BY_LENGTHS = {
    "llama": {"causal, by lengths, grouped"},
    "bart": {"causal, by lengths", "not causal, by lengths"},
    "gpt2": {"causal, by lengths"},
    "gemma": {"causal, by lengths, grouped"},
}
WHOLE = (
    *("model=tiny_llama", "peft=lora", "trainer=gpu", *DATA, "trainer.accumulate_grad_batches=2", "questions=2"),
    *("evaluate.rows=2", "callbacks.samples.number=1", "callbacks.samples.max_new_tokens=4"),
    *("generation.max_new_tokens=4", "generation=sample", "trainer.deterministic=true"),
)
OTHER_FAULTS = (
    *("loss_is_read", "sum_in_any_order", "products_in_float32", "mask_for_rows"),
    *("answers_on_the_cpu", "answers_in_float32"),
)


def mismatches(result: Result) -> set[str]:
    """Operations with tensors of two devices."""
    return {event["what"] for event in result.counts["events"] if event["kind"] == "mismatch"}


def not_deterministic(result: Result) -> set[str]:
    """Operations that CUDA refuses under ``trainer.deterministic=true``."""
    return {event["what"] for event in result.counts["events"] if event["kind"] == "not deterministic"}


def waits(result: Result) -> dict[tuple[str, str], float]:
    """How often the host waits in a step, by what and where."""
    found = in_steps(result.counts, "sync", cause)
    return {key: number / len(steady(result.counts)) for key, number in found.items()}


def unexpected_waits(result: Result, batches: int = 1) -> dict[tuple[str, str], float]:
    """Those that are not allowed, or not so often in an optimizer step of so many batches."""
    times = {"batch": batches, "window": 1, "check": float("inf")}
    most = {key: wait.most * times[wait.per] for key, wait in ALLOWED.items()}
    return {key: number for key, number in waits(result).items() if number > most.get(key, 0)}


def products(result: Result) -> set[str]:
    """Dtypes of matrix products in a step."""
    return {what.partition(" ")[2] for what, _ in in_steps(result.counts, "product", cause)}


def attention(result: Result) -> set[str]:
    """Calls of ``scaled_dot_product_attention`` in a step."""
    return {what for what, _ in in_steps(result.counts, "attention", cause)}


def expected_attention(case: Case) -> set[str]:
    dtype = DTYPES[case.precision]
    by_lengths = BY_LENGTHS.get(case.model) if dtype != "float32" else None
    return {f"{dtype}, {call.format(dtype=dtype)}" for call in by_lengths or ATTENTION[case.model, case.batching]}


def answers(result: Result) -> set[tuple[str, str]]:
    """Where answers were generated, and for whom."""
    return {(event["what"], event["place"]) for event in result.counts["events"] if event["kind"] == "answers"}


def products_of_answers(result: Result) -> set[str]:
    """Dtypes of matrix products while answers were generated on the device."""
    events = (event for event in result.counts["events"] if (event["kind"], event["phase"]) == ("product", "answer"))
    return {event["what"].partition(" ")[2] for event in events}


def waits_of_answers(result: Result) -> Counter[tuple[str, str]]:
    """How often the host waits while answers are generated, by what and where."""
    found = Counter[tuple[str, str]]()
    for event in result.counts["events"]:
        if (event["kind"], event["phase"]) == ("sync", "answer"):
            found[event["what"], cause(event)] += event["number"]
    return found


def losses(result: Result) -> list[float]:
    with (Path(result.folder) / "metrics.csv").open(newline="") as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pretended")


@pytest.fixture(scope="module")
def bart(folder: Path) -> list[str]:
    return twins.build("bart", folder / "tiny-bart")


@pytest.fixture(scope="module")
def results(folder: Path, bart: list[str]) -> Mapping[str, Result]:
    jobs = {name: case.job(bart) for name, case in FAST.items()}
    jobs["cpu"] = FAST["llama-none-packed-32-true"].job(bart, "trainer.accelerator=cpu")
    jobs["whole"] = Job((*WHOLE, "trainer.max_epochs=1"), gpus=2)
    jobs["resumed"] = Job(("resume=whole", "trainer.max_epochs=2"), gpus=2)
    short = ("trainer.max_steps=4", "questions=1", "generation.max_new_tokens=2")
    jobs["cpu_positions"] = LORA._replace(batching="packed").job(
        bart, "model.attention=sdpa", *short, faults=("positions_on_the_cpu",)
    )
    samples = ("callbacks.samples.number=1", "callbacks.samples.max_new_tokens=2")  # on the device
    jobs["faults"] = LORA.job(bart, "trainer.deterministic=warn", *short, *samples, faults=OTHER_FAULTS)
    return process.run(jobs, folder)


@pytest.mark.parametrize("name", FAST)
def test_a_training(name: str, results: Mapping[str, Result]) -> None:
    check(FAST[name], results[name])


@pytest.mark.slow
def test_every_training(bart: list[str], tmp_path: Path) -> None:
    found = process.run({name: case.job(bart) for name, case in ALL.items()}, tmp_path)
    for name, case in ALL.items():
        check(case, found[name])


def check(case: Case, result: Result) -> None:
    assert result.code == 0, result.output
    assert not mismatches(result)
    assert not unexpected_waits(result)
    assert products(result) == {DTYPES[case.precision]}
    assert attention(result) == expected_attention(case)
    assert any(
        place.startswith("models/chunked_head.py:_HeadLoss") for _, place in in_steps(result.counts, "product", cause)
    )


def test_each_allowed_wait_occurs(results: Mapping[str, Result]) -> None:
    found = [waits(results[name]) for name in (*FAST, "whole")]
    most = {key: max(one.get(key, 0) for one in found) for key in ALLOWED}
    assert all(most.values())
    counted = {key: wait.most for key, wait in ALLOWED.items() if wait.per != "check"}
    assert {key: most[key] for key in counted} == counted


def test_the_numbers_are_those_of_a_cpu(results: Mapping[str, Result]) -> None:
    assert results["cpu"].code == 0, results["cpu"].output
    assert not results["cpu"].counts["events"]
    on_device = losses(results["llama-none-packed-32-true"])
    assert on_device == pytest.approx(losses(results["cpu"]), rel=1e-5)
    assert len(on_device) > 1


def test_a_whole_deterministic_run_and_its_resume_answer_on_the_device(results: Mapping[str, Result]) -> None:
    for name in ("whole", "resumed"):
        assert results[name].code == 0, results[name].output
        assert not mismatches(results[name])
        assert not not_deterministic(results[name])
        assert not unexpected_waits(results[name], batches=2)
        assert products_of_answers(results[name]) == {"bfloat16"}  # samples, end table and evaluation, base and tuned
        assert set(waits_of_answers(results[name])) == set(WAITS_OF_ANSWERS)
        assert "fork_rng" not in results[name].output  # it warns where there are two devices
        asked = {"training/fit.py:answers", "callbacks/samples.py:Samples.on_validation_epoch_end"}
        asked |= {"evaluation/inference.py:generate"}
        assert answers(results[name]) == {("cuda:0", place) for place in asked}


def test_a_tensor_that_is_left_on_the_cpu_is_found(results: Mapping[str, Result]) -> None:
    assert results["cpu_positions"].code
    assert "Expected all tensors to be on the same device" in results["cpu_positions"].output
    assert mismatches(results["cpu_positions"])


def test_other_planted_faults_are_found(results: Mapping[str, Result]) -> None:
    faulty = results["faults"]
    assert faulty.code == 0, faulty.output
    assert ("item", "models/module.py:InstructionModule.training_step") in unexpected_waits(faulty)
    assert "cumsum" in not_deterministic(faulty)
    assert "float32" in products(faulty)
    assert attention(faulty) - expected_attention(LORA)
    assert ("cpu", "training/fit.py:answers") in answers(faulty)
    assert "float32" in products_of_answers(faulty)
