"""What the examples of a batch begin with is computed once: same loss, tokens and gradients as one example at a time."""

import pytest
import torch

from llmft.data.batching.collate import training_batch
from llmft.data.tokenization.codec import IGNORED, EncodedExample
from llmft.evaluation.row_loss import row_losses
from llmft.models import chunked_head
from llmft.models.attention import shared_prefix, varlen
from tests.guarantees.reference import measured
from tests.guarantees.test_packing_changes_nothing import step
from tests.support.twins import build

DATA = ("data=alpaca", "data.path=sample", "data.limit=4")
COMMON, FURTHER = list(range(10, 22)), list(range(30, 36))
# seven begin with 12 tokens, four of these with 6 more; the first label of the last is one of the 12 (at 8)
PROMPTS = [
    [*COMMON, *FURTHER, 40],
    [*COMMON, *FURTHER, 41, 42],
    [*COMMON, *FURTHER, 43],
    [*COMMON, *FURTHER, 44, 45, 46],
]
PROMPTS += [[*COMMON, 50], [*COMMON, 51, 52, 53], [*COMMON, 54, 55], COMMON[:8]]
ANSWERS = [[60, 61], [62], [63, 64, 65], [66], [67, 68], [69], [70, 71], [*COMMON[8:], 72, 73]]
TOKENS = 7 + 5 + 6 + (3 + 3 + 4 + 4 + 3 + 4 + 4 + 7)


def examples():
    found = []
    for prompt, answer in zip(PROMPTS, ANSWERS, strict=True):
        ids, labels = prompt + answer, [IGNORED] * len(prompt) + answer
        found.append(EncodedExample(ids, labels, len(prompt), len(answer), len(answer)))
    return found


@pytest.fixture(scope="session")
def qwen3(tmp_path_factory):
    return build("qwen3", tmp_path_factory.mktemp("twins") / "qwen3")


@pytest.fixture
def prepared(built, qwen3):
    def prepare(model, peft, *overrides):
        own = qwen3 if model == "qwen3" else (f"model={model}",)
        dropout = ["model.dropout=0", *["peft.dropout=0"][: peft == "lora"]]
        data, module = built(*own, f"peft={peft}", *DATA, *dropout, *overrides)
        generator = torch.Generator().manual_seed(1)
        for name, p in module.model.named_parameters():
            p.data *= 1.5  # sharper than freshly made
            if "lora_B" in name:  # zeros would hide the gradient of lora_A
                torch.nn.init.normal_(p, std=0.1, generator=generator)
        return data, module.train()

    return prepare


@pytest.mark.parametrize(("peft", "short"), [("none", 0), ("lora", 128)])
@pytest.mark.parametrize("model", ["tiny_gpt2", "tiny_llama", "tiny_gemma", "qwen3"])
def test_shared_prefixes_change_nothing(model, peft, short, prepared, monkeypatch):
    """One segment at a time, and what follows the shared ones in one padded batch; a batch of rows, and packed ones."""
    monkeypatch.setattr(varlen, "SHORT", short)
    data, module = prepared(model, peft)
    rows = examples()
    single = training_batch([[row] for row in rows], data.pad_id)
    shared = module.forward_pass.unpad_if_faster(single)
    assert shared["input_ids"].shape == (1, TOKENS)
    assert module.forward_pass.kernels.sharing_is_equivalent
    expected = measured(module.model, [(row.input_ids, row.labels) for row in rows])
    largest = max(gradient.abs().max() for gradient in expected["gradients"].values())
    packed = [rows[:1], rows[1:5], rows[5:]]
    if model == "tiny_gemma":  # packed sequences are longer than its window
        packed = [[row] for row in reversed(rows)]
    for sequences in ([[row] for row in rows], packed):
        mean, tokens, gradients = step(module, sequences, data.pad_id)
        assert (mean, tokens) == (pytest.approx(expected["loss"], rel=1e-5), expected["tokens"])
        assert gradients.keys() == expected["gradients"].keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(
                gradient, expected["gradients"][name], rtol=1e-4, atol=1e-5 * float(largest), msg=name
            )


def test_weights_and_rows_without_labels_stay_with_their_examples(prepared):
    data, module = prepared("tiny_llama", "none")
    rows = examples()
    rows[1] = EncodedExample(rows[1].input_ids, [IGNORED] * len(rows[1].labels), 20, 1, 0)
    rows[3] = EncodedExample(rows[3].input_ids, rows[3].labels, 21, 1, 1, weights=[2.0] * len(rows[3].labels))
    batch = training_batch([[row] for row in rows], data.pad_id)
    assert "segments" in module.forward_pass.unpad_if_faster(batch)
    total, weight = module.forward_pass.loss_sum(batch)
    trained = [*rows[:1], *rows[2:], rows[3]]
    expected = measured(module.model, [(row.input_ids, row.labels) for row in trained])
    assert float(weight) == expected["tokens"]
    assert (total / weight).item() == pytest.approx(expected["loss"], rel=1e-5)


def test_the_loss_of_each_row_is_the_same(prepared, monkeypatch):
    monkeypatch.setattr(chunked_head, "CHUNK", 4)
    data, module = prepared("tiny_llama", "lora")
    found = row_losses(module.forward_pass, examples(), data.pad_id, 10_000)
    assert module.forward_pass.kernels.sharing_is_equivalent
    for row, (nats, tokens) in zip(examples(), found, strict=True):
        expected = measured(module.model, [(row.input_ids, row.labels)])
        assert (nats, tokens) == (pytest.approx(expected["loss"] * tokens, rel=1e-6), expected["tokens"])


@pytest.mark.parametrize(("value", "shared_in_training"), [("auto", False), ("always", True)])
def test_dropout_draws_noise_for_each_example_unless_it_need_not(value, shared_in_training, prepared, caplog):
    data, module = prepared("tiny_llama", "lora", "peft.dropout=0.1", f"model.shared_prefix={value}")
    batch = training_batch([[row] for row in examples()], data.pad_id)
    with caplog.at_level("INFO"):
        for _ in range(2):
            assert ("segments" in module.forward_pass.unpad_if_faster(batch)) == shared_in_training
    assert caplog.text.count("shared prefixes: in validation only") == (not shared_in_training)
    module.eval()
    assert "segments" in module.forward_pass.unpad_if_faster(batch)


def test_a_model_that_computes_something_else_shares_nothing(prepared, monkeypatch, caplog):
    data, module = prepared("tiny_llama", "none")
    batch = training_batch([[row] for row in examples()], data.pad_id)
    expected = measured(module.model, [(row.input_ids, row.labels) for row in examples()])
    real = shared_prefix.shared_layout
    alone = lambda segments: real([segment._replace(parent=-1) for segment in segments])  # noqa: E731
    monkeypatch.setattr(shared_prefix, "shared_layout", alone)
    with caplog.at_level("INFO"):
        kept = module.forward_pass.unpad_if_faster(batch)
    assert "segments" not in kept
    assert module.forward_pass.kernels.sharing_is_equivalent is False
    assert "prefixes are not shared: " in caplog.text
    total, tokens = module.forward_pass.loss_sum(batch)
    assert (total / tokens).item() == pytest.approx(expected["loss"], rel=1e-5)
