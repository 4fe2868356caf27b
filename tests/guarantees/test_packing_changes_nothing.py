"""Packed examples are trained as single ones: same loss, tokens and gradients as one example per batch, T5 included."""

import pytest
import torch

from llmft.data.batching.collate import training_batch
from llmft.data.batching.sampler import first_fit_decreasing
from llmft.data.tokenization.codec import EncodedExample
from llmft.models import causal, seq2seq
from llmft.models.attention import packing
from llmft.utils.errors import UserError
from tests.guarantees.reference import measured

MODELS = ("tiny_t5", "tiny_gpt2", "tiny_llama", "tiny_gemma")


def packed(data, rows=9, sequences=2):
    """Some examples in some packed sequences of different lengths, so that one is padded too."""
    chosen = data.encoded["train"][:rows]
    room = tuple(max(sizes) * 3 for sizes in zip(*(row.size for row in chosen), strict=True))
    found = first_fit_decreasing(range(rows), [row.size for row in chosen], room)[:sequences]
    assert min(map(len, found)) > 1
    return [[chosen[row] for row in sequence] for sequence in found]


def step(module, sequences, pad_id):
    module.zero_grad()
    total, tokens = module.forward_pass.loss_sum(training_batch(sequences, pad_id))
    (total / tokens).backward()
    gradients = {name: p.grad.clone() for name, p in module.model.named_parameters() if p.grad is not None}
    return total.item() / tokens.item(), tokens.item(), gradients


@pytest.mark.parametrize(("attention", "padding"), [("sdpa", "skipped"), ("sdpa", "kept"), ("eager", "kept")])
@pytest.mark.parametrize("peft", ["none", "lora"])
@pytest.mark.parametrize("model", MODELS)
def test_packing_changes_nothing(model, peft, attention, padding, built):
    data, module = built(
        f"model={model}",
        f"peft={peft}",
        f"model.attention={attention}",
        f"model.padding={padding}",
        "data=alpaca",
        "data.path=sample",
        "data.limit=20",
    )
    for name, p in module.model.named_parameters():
        if "lora_B" in name:  # zeros would hide the gradient of lora_A
            torch.nn.init.normal_(p, std=0.1, generator=torch.Generator().manual_seed(1))
    module.eval()
    sequences = packed(data)
    rows = [row for sequence in sequences for row in sequence]
    loss, tokens, gradients = step(module, sequences, data.pad_id)
    single = measured(module.model, [(row.input_ids, row.labels) for row in rows])
    assert tokens == single["tokens"]
    assert loss == pytest.approx(single["loss"], rel=1e-5)
    assert gradients.keys() == single["gradients"].keys()
    largest = max(gradient.abs().max() for gradient in gradients.values())
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, single["gradients"][name], rtol=1e-4, atol=1e-5 * float(largest), msg=name)


def test_a_full_batch_with_padding_on_one_side_of_each_sequence(built):
    """Both sides have as many examples in all, but not in each sequence: sources and targets must not be mixed up."""
    data, module = built(
        "model=tiny_t5", "peft=none", "data=alpaca", "data.path=sample", "data.limit=20", "model.padding=skipped"
    )
    module.eval()
    module.forward_pass.kernels.packing_is_equivalent = True  # as after a first batch, which is compared
    sizes = [[(20, 10), (20, 9)], [(20, 10), (19, 10)]]
    ids = iter(torch.randint(2, 200, (200,), generator=torch.Generator().manual_seed(1)).tolist())
    rows = [[([next(ids) for _ in range(n)], [next(ids) for _ in range(m)]) for n, m in sequence] for sequence in sizes]
    sequences = [
        [EncodedExample(source, target, len(source), len(target), len(target)) for source, target in s] for s in rows
    ]
    loss, tokens, _ = step(module, sequences, data.pad_id)
    assert tokens == 39
    single = measured(module.model, [row for sequence in rows for row in sequence])
    assert loss == pytest.approx(single["loss"], rel=1e-5)


@pytest.mark.parametrize("model", MODELS[1:])
def test_packing_changes_nothing_where_prompts_are_all_trained(model, built):
    data, module = built(
        f"model={model}", "peft=none", "data.train_on=all", "data=alpaca", "data.path=sample", "data.limit=20"
    )
    module.eval()
    sequences = packed(data)
    loss, tokens, _ = step(module, sequences, data.pad_id)
    single = measured(module.model, [(row.input_ids, row.labels) for sequence in sequences for row in sequence])
    assert tokens == single["tokens"]
    assert loss == pytest.approx(single["loss"], rel=1e-5)


@pytest.mark.parametrize("model", ["tiny_t5", "tiny_llama"])
def test_packed_sequences_may_keep_their_padding(model, built, monkeypatch):
    """As when losses per example are computed."""
    data, module = built(f"model={model}", "peft=none", "data=alpaca", "data.path=sample", "data.limit=20")
    monkeypatch.setattr(module.forward_pass, "unpad_if_faster", lambda batch: batch)
    module.eval()
    sequences = packed(data)
    loss, tokens, _ = step(module, sequences, data.pad_id)
    single = measured(module.model, [(row.input_ids, row.labels) for sequence in sequences for row in sequence])
    assert (loss, tokens) == (pytest.approx(single["loss"], rel=1e-5), single["tokens"])


def in_one(rows):
    """The examples of a packed sequence as if they were one."""
    return [[rows.shape[1]] for _ in rows]


@pytest.mark.parametrize("model", MODELS)
def test_the_equivalence_check_sees_a_leak(model, built, monkeypatch):
    data, module = built(f"model={model}", "peft=none", "data=alpaca", "data.path=sample", "data.limit=20")
    sequence = packed(data)[0]
    assert module.forward_pass.check_packing(sequence, data.pad_id) < 1e-5
    assert module.training
    monkeypatch.setattr(packing, "lengths", in_one)
    monkeypatch.setattr(causal, "positions_in_rows", lambda rows: torch.arange(rows.shape[1])[None])
    monkeypatch.setattr(seq2seq, "block_mask", lambda q, k, *_, **__: torch.zeros(len(q), 1, q.shape[1], k.shape[1]))
    with pytest.raises(UserError, match=r"data.batching=packed: this model lets packed examples attend to each other"):
        module.forward_pass.check_packing(sequence, data.pad_id)


def test_a_run_refuses_a_model_that_leaks(llmft, monkeypatch):
    monkeypatch.setattr(packing, "lengths", in_one)
    monkeypatch.setattr(causal, "positions_in_rows", lambda rows: torch.arange(rows.shape[1])[None])
    code, _, err = llmft(
        "model=tiny_llama", "data=alpaca", "data.path=sample", "data.limit=20", "data.batching=packed", "output_dir=run"
    )
    assert code == 2
    assert "use data.batching=tokens or grouped" in err
