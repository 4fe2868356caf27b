"""A weight counts: weight 2 trains as the row twice, for both families, batched, packed and without padding."""

from dataclasses import replace

import pytest
import torch

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
        ("tiny_llama", ["model.padding=kept"]),
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
