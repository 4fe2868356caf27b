"""A weight counts: weight 2 trains as the row twice, for both families, batched, packed and without padding."""

import csv
from dataclasses import replace

import pytest
import torch

from tests.conftest import chat_row, write_rows
from tests.guarantees.reference import measured
from tests.guarantees.test_packing_changes_nothing import step


def layouts(rows):
    """One example per sequence, and two packed sequences."""
    return [[row] for row in rows], [rows[:3], rows[3:]]


@pytest.mark.parametrize(
    ("model", "kernels"),
    [
        ("tiny_t5", ["model.padding=skipped"]),
        ("tiny_llama", ["model.padding=skipped"]),
        pytest.param("tiny_llama", ["model.padding=kept"], marks=pytest.mark.slow),
        ("tiny_llama", ["performance=plain"]),
        ("tiny_gpt2", ["peft=lora", "model.padding=skipped"]),
        pytest.param("tiny_t5", ["model.padding=kept"], marks=pytest.mark.slow),
        pytest.param("tiny_gemma", ["model.padding=skipped"], marks=pytest.mark.slow),
    ],
)
def test_weight_two_is_the_row_twice_and_a_fraction_its_part(model, kernels, built):
    data, module = built(f"model={model}", "peft=none", *kernels, "data=alpaca", "data.path=sample", "data.limit=12")
    module.eval()
    plain = list(data.encoded["train"][:5])
    weighted = [
        replace(row, weights=[float(w)] * len(row.labels)) for row, w in zip(plain, (2, 1, 3, 1, 1), strict=True)
    ]
    weighted[1] = plain[1]  # a batch may hold rows with and without weights
    repeated = [row for row, times in zip(plain, (2, 1, 3, 1, 1), strict=True) for _ in range(times)]
    expected = measured(module.model, [(row.input_ids, row.labels) for row in repeated])
    halved = [replace(row, weights=[w / 2 for w in row.weights or [1.0] * len(row.labels)]) for row in weighted]
    for rows, share in ((weighted, 1), (halved, 0.5)):
        for sequences in layouts(rows):
            loss, tokens, gradients = step(module, sequences, data.pad_id)
            assert tokens == pytest.approx(share * expected["tokens"])
            assert loss == pytest.approx(expected["loss"], rel=1e-5)
            least = 1e-5 * float(max(gradient.abs().max() for gradient in gradients.values()))
            for name, gradient in gradients.items():
                torch.testing.assert_close(gradient, expected["gradients"][name], rtol=1e-4, atol=least, msg=name)


WEIGHTS = (2, 1, 3, 1, 1, 1, 0)
WATCHED = ("train/loss", "train/grad_norm", "train/tokens")


def steps(llmft, tmp_path, name, rows, *options):
    """Loss, gradient norm and tokens of three optimizer steps, each over all rows."""
    file = write_rows(tmp_path / f"{name}.jsonl", *rows)
    code, _, err = llmft(
        f"data.path={file}", f"output_dir={name}", "optim.lr=1e-3", "trainer.max_steps=3", "trainer.max_epochs=-1", "trainer.log_every_n_steps=1",
        "data.shuffle=false", "data.split={val: 0, test: 0}", "model.dropout=0", "questions=0", "evaluate.rows=0", "report.write=false", "callbacks.samples.number=0",
        "logger=none", *options,
    )  # fmt: skip
    assert code == 0, err
    table = csv.DictReader((tmp_path / name / "metrics.csv").open())
    return [[float(row[key]) for key in WATCHED] for row in table if row["train/loss"]]


@pytest.mark.parametrize("model", ["tiny_llama", pytest.param("tiny_t5", marks=pytest.mark.slow)])
def test_a_training_with_weights_is_that_of_the_repeated_rows(model, llmft, tmp_path):
    rows = [chat_row(f"Q{n} {'?' * n}", "word " * (n + 1) + ".") for n in range(len(WEIGHTS))]
    weighted = [row | ({"weight": weight} if weight != 1 else {}) for row, weight in zip(rows, WEIGHTS, strict=True)]
    repeated = [row for row, weight in zip(rows, WEIGHTS, strict=True) for _ in range(weight)]
    options = (f"model={model}", "peft=none")
    expected = steps(llmft, tmp_path, "repeated", repeated, *options, "data.batch_size=9")
    assert len(expected) == 3
    for name, batching in (
        ("accumulated", ("data.batch_size=2", "trainer.accumulate_grad_batches=3")),
        ("packed", ("data.batching=packed", "data.batch_size=1", "trainer.accumulate_grad_batches=1")),
    ):
        found = steps(llmft, tmp_path, name, weighted, *options, *batching)
        for numbers, wanted in zip(found, expected, strict=True):
            assert numbers == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("model", ["tiny_llama", "tiny_t5"])
def test_a_turn_of_weight_zero_is_read_and_not_trained(model, encoded, tmp_path):
    (first, bad), (second, good) = (chat_row(f"Q{n}", f"A{n}")["messages"] for n in (1, 2))
    turns = [first, bad | {"weight": 0}, second, good | {"weight": 2}]
    write_rows(tmp_path / "rows.jsonl", {"messages": turns})
    write_rows(tmp_path / "plain.jsonl", {"messages": [first, bad, second, good]})
    options = (f"model={model}", "data.split={val: 0, test: 0}")
    (row,) = encoded(*options, f"data.path={tmp_path / 'rows.jsonl'}", "data.train_on_turns=all").encoded["train"]
    (last,) = encoded(*options, f"data.path={tmp_path / 'plain.jsonl'}", "data.train_on_turns=last").encoded["train"]
    assert (row.input_ids, row.labels, row.supervised) == (last.input_ids, last.labels, last.supervised)
    assert {w for w, label in zip(row.weights, row.labels, strict=True) if label != -100} == {2.0}
