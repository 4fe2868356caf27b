"""Flex attention over examples: the blocks that its kernel computes, and that loss and gradients are those of SDPA."""

import pytest
import torch

from llmft.models.attention import flex, flex_kernel
from llmft.models.attention.key_ranges import block_mask, key_ranges
from llmft.utils import flex as installed
from tests.support import flex_kernel as stand_in_kernel
from tests.unit.models.attention.test_flash import CAUSAL, SEQ2SEQ, assert_same, forward_of, made, step


def ranges(*lengths, causal=True, window=None):
    offsets = [torch.tensor([0, *sizes], dtype=torch.int32).cumsum(0) for sizes in lengths]
    tokens = [sum(sizes) for sizes in (lengths[0], lengths[-1])]
    return key_ranges((offsets[0], offsets[-1]), *tokens, causal=causal, window=window)


@pytest.mark.parametrize(
    ("keys", "first", "last"),
    [
        (ranges([3, 1, 2]), [0, 0, 0, 3, 4, 4], [0, 1, 2, 3, 4, 5]),
        (ranges([5, 2], window=2), [0, 0, 1, 2, 3, 5, 5], [0, 1, 2, 3, 4, 5, 6]),
        (ranges([3, 2], causal=False), [0, 0, 0, 3, 3], [2, 2, 2, 4, 4]),
        (ranges([1, 3], [4, 2], causal=False), [0, 4, 4, 4], [3, 5, 5, 5]),
    ],
    ids=["causal", "window", "encoder", "cross"],
)
def test_the_keys_of_a_query_are_a_range(keys, first, last):
    assert keys.first.tolist() == first
    assert keys.last.tolist() == last


@pytest.mark.parametrize("causal", [True, False])
def test_blocks_of_the_mask_are_those_of_its_tokens(causal):
    """Hand-written: tokens 0 to 99 are an example, 100 to 399 the second; 128 to 399 of 400 are its blocks 1 to 3."""
    mask = block_mask(ranges([100, 300], causal=causal))
    partly = [[0], [0, 1], [0, 2], [0, 3]] if causal else [[0, 1, 2, 3], [0], [0], [0]]
    wholly = [[], [], [1], [1, 2]] if causal else [[], [1, 2, 3], [1, 2, 3], [1, 2, 3]]
    for numbers, indices, expected in (
        (mask.kv_num_blocks, mask.kv_indices, partly),
        (mask.full_kv_num_blocks, mask.full_kv_indices, wholly),
    ):
        found = [
            columns[:number] for number, columns in zip(numbers[0, 0].tolist(), indices[0, 0].tolist(), strict=True)
        ]
        assert found == expected


@pytest.mark.parametrize("window", [None, 1, 40, 130, 300])
@pytest.mark.parametrize("lengths", [[512], [130, 5, 250, 1, 126], [1] * 300, [384, 300]], ids=str)
def test_a_causal_kernel_computes_the_scores_of_segment_ids(lengths, window):
    rows = torch.repeat_interleave(torch.tensor(lengths))
    at = torch.arange(len(rows))
    expected = (rows[:, None] == rows) & (at[:, None] >= at)
    if window is not None:
        expected &= at[:, None] - at < window
    assert torch.equal(stand_in_kernel.computed(block_mask(ranges(lengths, window=window))), expected)


@pytest.mark.parametrize("sources", [[3, 400, 7], [256, 1, 1]], ids=str)
def test_cross_attention_computes_the_scores_of_segment_ids(sources):
    targets = [200, 5, 129]
    rows, keys = (torch.repeat_interleave(torch.tensor(sizes)) for sizes in (targets, sources))
    mask = block_mask(ranges(targets, sources, causal=False))
    assert torch.equal(stand_in_kernel.computed(mask), rows[:, None] == keys)


@pytest.mark.parametrize("packed", [False, True], ids=["rows", "packed"])
@pytest.mark.parametrize("kind", ["Llama", "Mistral", "GPT2", "Gemma2", "Bart"])
def test_loss_and_gradients_are_those_of_sdpa(kind, packed, monkeypatch):
    kernel = stand_in_kernel.install(monkeypatch)
    examples = SEQ2SEQ if kind == "Bart" else CAUSAL
    sequences = [examples[:2], examples[2:]] if packed else [[example] for example in examples]
    forward = forward_of(kind, varlen=True, flex=True)
    step(forward.__class__(forward.model, forward.kernels), sequences)  # compares, and installs
    kernel.calls.clear()
    found = step(forward, sequences)
    assert forward.kernels.packing_is_equivalent
    assert len(kernel.calls) == (6 if kind == "Bart" else 2)
    assert {call.capped for call in kernel.calls} == {kind == "Gemma2"}
    assert_same(found, step(forward_of(kind, plain=True), [[example] for example in examples]))


def test_a_batch_has_one_mask_for_all_layers_of_a_kind(monkeypatch):
    kernel, masks = stand_in_kernel.install(monkeypatch), []
    monkeypatch.setattr(flex, "block_mask", lambda keys: masks.append(keys) or block_mask(keys))
    forward = forward_of("Bart", varlen=True, flex=True)
    forward.kernels.packing_is_equivalent = True
    step(forward, [SEQ2SEQ])
    assert len(masks) == 3  # encoder, decoder, cross attention
    assert not flex._block_masks  # gone with the batch
    assert kernel.calls[-1].seen.shape == (256, 256)


def test_answers_and_padded_batches_are_those_without(monkeypatch):
    kernel = stand_in_kernel.install(monkeypatch)
    ids, mask = torch.tensor([[1, 5, 6, 7], [8, 9, 3, 4]]), torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]])
    options = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 1}
    for kind in ("Mistral", "Gemma2"):
        model = made(kind).eval()
        with torch.no_grad():
            before = model(ids, attention_mask=mask).logits, model.generate(ids, attention_mask=mask, **options)
            flex.install(model)
            after = model(ids, attention_mask=mask).logits, model.generate(ids, attention_mask=mask, **options)
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert not kernel.calls


def test_packing_is_checked_with_the_kernel(monkeypatch):
    kernel = stand_in_kernel.install(monkeypatch)
    difference = forward_of("Gemma2", varlen=True, flex=True).check_packing(CAUSAL, 1)
    assert difference is not None
    assert difference < 1e-5
    assert kernel.calls[-1].seen.sum(1)[:10].tolist() == [1, 2, 3, 1, 2, 3, 4, 5, 1, 2]


@pytest.mark.slow
def test_torchs_own_computes_the_same_and_is_compiled_once_for_all_lengths(monkeypatch):
    """With its automatic differentiation, which torch refuses on a CPU, and without the code for a device."""
    import torch._dynamo
    from torch.nn.attention import flex_attention as of_torch

    monkeypatch.setattr(of_torch, "_validate_device", lambda *_: None)
    monkeypatch.setattr(flex, "DEVICES", ("cpu",))
    monkeypatch.setattr(flex_kernel, "_compared", set())
    compiled = torch.compile(of_torch.flex_attention, backend="aot_eager", fullgraph=True)
    monkeypatch.setattr(flex_kernel, "_flex_attention", lambda: compiled)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    forward, plain = forward_of("Gemma2", varlen=True, flex=True), forward_of("Gemma2", plain=True)
    graphs = []
    for number in (3, 90, 150, 4, 70):
        rows = [[CAUSAL[n % 3]] for n in range(number)]
        found, expected = (torch.cat([x.flatten() for x in step(each, rows)[2].values()]) for each in (forward, plain))
        assert float((found - expected).norm() / expected.norm()) < 1e-5
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert forward.kernels.packing_is_equivalent
    assert graphs[1:] == [graphs[1]] * 4, graphs


@pytest.mark.parametrize("fault", ["forward", "backward"])
def test_a_kernel_that_computes_something_else_is_not_used(fault, monkeypatch, caplog):
    kernel = stand_in_kernel.install(monkeypatch)

    def broken(query, key, value, **options):
        if fault == "forward":
            return kernel(query, key, value, **options) * 1.1
        return kernel(query, key.detach(), value, **options) + 0 * key.sum()

    monkeypatch.setattr(flex_kernel, "_flex_attention", lambda: broken)
    forward = forward_of("Llama", varlen=True, flex=True)
    with caplog.at_level("INFO"):
        found = step(forward, [[example] for example in CAUSAL])
    assert forward.kernels.packing_is_equivalent is False
    name = "output" if fault == "forward" else "of keys"
    assert f"padding is kept: the model cannot run unpadded sequences (flex attention: {name} differs by" in caplog.text
    assert_same(found, step(forward_of("Llama"), [[example] for example in CAUSAL]))


def test_a_mask_that_mixes_examples_is_not_used(monkeypatch, caplog):
    stand_in_kernel.install(monkeypatch)
    monkeypatch.setattr(flex, "key_ranges", lambda offsets, *a, **k: key_ranges([x[[0, -1]] for x in offsets], *a, **k))
    forward = forward_of("Llama", varlen=True, flex=True)
    with caplog.at_level("INFO"):
        step(forward, [[example] for example in CAUSAL])
    assert forward.kernels.packing_is_equivalent is False
    assert "padding is kept: examples of an unpadded sequence attend to each other" in caplog.text


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"hidden_size": 64, "num_attention_heads": 4, "attn_logit_softcapping": 50.0}, None),
        ({"hidden_size": 60, "num_attention_heads": 3}, None),
        ({"relative_attention_num_buckets": 32}, "its relative position bias is a tensor of tokens times tokens"),
        ({"attention_chunk_size": 8192}, "it attends in chunks"),
        ({"model_type": "gpt_oss"}, "it has attention sinks"),
        ({"hidden_size": 60, "num_attention_heads": 5}, "its attention heads have 12 dimensions"),
        ({"head_dim": 512, "hidden_size": 64}, "its attention heads have 512 dimensions"),
        ({"attn_pdrop": 0.1}, "its attention drops out (attn_pdrop=0.1), which the kernel cannot; model.dropout=0"),
    ],
    ids=lambda value: None if isinstance(value, dict) else str(value)[:24],
)
def test_what_an_architecture_says(config, why):
    found = installed.unfit(config)
    assert found is None if why is None else found is not None and found.startswith(why)


@pytest.mark.parametrize(
    ("available", "capability", "hip", "triton", "why"),
    [
        (False, (0, 0), None, True, "torch finds no CUDA GPU on this machine, and its flex attention has no backward pass"),
        (True, (6, 1), None, True, "Tesla P40 has compute capability 6.1, and Triton needs 7.0 (Volta) or more"),
        (True, (9, 0), "6.4", True, "it is not tested on ROCm"),
        (True, (8, 6), None, False, "no Triton"),
        (True, (7, 5), None, True, None),
    ],
)  # fmt: skip
def test_what_a_machine_says(available, capability, hip, triton, why, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: available)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda: capability)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "Tesla P40")
    monkeypatch.setattr("torch.version.hip", hip)
    monkeypatch.setattr("llmft.utils.torch_compile.unavailable", lambda _: None if triton else "no Triton")
    found = installed.unavailable()
    assert found == why or (why and found and found.startswith(why))
