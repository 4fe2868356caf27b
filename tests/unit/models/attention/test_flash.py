"""FlashAttention over examples: what its kernel is called with, and that loss and gradients are those of SDPA."""

import pytest
import torch

from llmft.data.batching.collate import training_batch
from llmft.data.tokenization.codec import IGNORED, EncodedExample
from llmft.models.attention import flash
from llmft.models.attention.flat import flatten
from llmft.models.attention.kernels import Kernels
from llmft.models.causal import CausalForward
from llmft.models.seq2seq import Seq2SeqForward
from llmft.utils import flash as installed
from tests.support import varlen_kernel

CAUSAL = [EncodedExample([5, 6, 7], [IGNORED, 6, 7], 1, 2, 2), EncodedExample([8, 9, 3, 4, 2], [IGNORED, 9, 3, 4, 2], 1, 4, 4), EncodedExample([4, 2], [IGNORED, 2], 1, 1, 1)]  # fmt: skip
SEQ2SEQ = [EncodedExample([5, 6, 7, 2], [6, 2], 4, 2, 2), EncodedExample([8, 2], [9, 3, 4, 2], 2, 4, 4), EncodedExample([4, 9, 2], [3, 4, 2], 3, 3, 3)]  # fmt: skip
SIZE = {"vocab_size": 11, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}


def made(kind):
    import transformers

    torch.manual_seed(0)
    wide = {"intermediate_size": 48, "num_key_value_heads": 2, "initializer_range": 0.3}
    configs = {
        "Llama": lambda c: c(**SIZE, **wide),
        "Qwen2": lambda c: c(**SIZE, **wide),
        "Mistral": lambda c: c(**SIZE, **wide, sliding_window=2),
        "Gemma2": lambda c: c(
            **SIZE, **wide, head_dim=16, sliding_window=2, attn_logit_softcapping=1.0, query_pre_attn_scalar=3
        ),
        "GPT2": lambda c: c(
            vocab_size=11, n_embd=32, n_layer=2, n_head=4, attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0
        ),
        "Bart": lambda c: c(
            vocab_size=11, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
            decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, dropout=0.0, init_std=0.3,
            decoder_start_token_id=2, bos_token_id=0, pad_token_id=1, eos_token_id=2,
        ),
    }  # fmt: skip
    config = configs[kind](getattr(transformers, f"{kind}Config"))
    suffix = "ForConditionalGeneration" if kind == "Bart" else "LMHeadModel" if kind == "GPT2" else "ForCausalLM"
    return getattr(transformers, f"{kind}{suffix}")(config)


def forward_of(kind, **kernels):
    family = Seq2SeqForward if kind == "Bart" else CausalForward
    return family(made(kind), Kernels(**kernels))


def step(forward, sequences):
    forward.model.zero_grad()
    total, tokens = forward.loss_sum(training_batch(sequences, pad_id=1))
    total.backward()
    return total.detach(), tokens, {name: p.grad for name, p in forward.model.named_parameters() if p.grad is not None}


def assert_same(found, expected):
    torch.testing.assert_close(found[:2], expected[:2], rtol=1e-5, atol=1e-5)
    assert found[2].keys() == expected[2].keys()
    for name, gradient in expected[2].items():
        torch.testing.assert_close(found[2][name], gradient, rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.parametrize("checkpointed", [False, True], ids=["stored", "recomputed"])
@pytest.mark.parametrize("packed", [False, True], ids=["rows", "packed"])
@pytest.mark.parametrize("kernel", ["torch", "flash_attention_2"])
@pytest.mark.parametrize("kind", ["Llama", "Qwen2", "Mistral", "GPT2", "Bart"])
def test_loss_and_gradients_are_those_of_sdpa(kind, kernel, packed, checkpointed, monkeypatch):
    stand_in = varlen_kernel.install(monkeypatch, kernel)
    examples = SEQ2SEQ if kind == "Bart" else CAUSAL
    sequences = [examples[:2], examples[2:]] if packed else [[example] for example in examples]
    forward = forward_of(kind, varlen=True, flash=True)
    if checkpointed:
        forward.model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    step(forward.__class__(forward.model, forward.kernels), sequences)  # compares, and installs
    stand_in.calls.clear()
    found = step(forward, sequences)
    assert forward.kernels.packing_is_equivalent
    assert len(stand_in.calls) == (6 if kind == "Bart" else 2) * (2 if checkpointed else 1)
    assert_same(found, step(forward_of(kind, plain=True), [[example] for example in examples]))


def test_a_causal_model_calls_the_kernel_with_the_examples_of_all_rows(monkeypatch):
    stand_in = varlen_kernel.install(monkeypatch, "torch")
    forward = forward_of("Mistral", varlen=True, flash=True)
    forward.kernels.packing_is_equivalent = True
    step(forward, [CAUSAL[:2], CAUSAL[2:]])
    heads = ((10, 4, 8), (10, 2, 8), (10, 2, 8))
    offsets = [0, 3, 8, 10]
    assert stand_in.calls == [varlen_kernel.Call(heads, torch.float32, (offsets, offsets), (5, 5), True, (1, 0))] * 2


def test_an_encoder_decoder_calls_it_three_times_a_layer(monkeypatch):
    stand_in = varlen_kernel.install(monkeypatch, "flash_attention_2")
    forward = forward_of("Bart", varlen=True, flash=True)
    forward.kernels.packing_is_equivalent = True
    step(forward, [SEQ2SEQ])
    sources, targets = [0, 4, 6, 9], [0, 2, 6, 9]
    encoder = varlen_kernel.Call(((9, 4, 8),) * 3, torch.float32, (sources, sources), (4, 4), False, (-1, -1))
    decoder = encoder._replace(offsets=(targets, targets), causal=True)
    cross = encoder._replace(offsets=(targets, sources))
    assert stand_in.calls == [encoder, encoder, decoder, cross, decoder, cross]


def test_a_flat_batch_has_its_tokens_rows_and_positions():
    batch = training_batch([CAUSAL[:2], CAUSAL[2:]], pad_id=1)
    flat = flatten(batch, batch["layout"])
    assert flat["input_ids"].tolist() == [[5, 6, 7, 8, 9, 3, 4, 2, 4, 2]]
    assert flat["labels"].tolist() == [[IGNORED, 6, 7, IGNORED, 9, 3, 4, 2, IGNORED, 2]]
    assert flat["rows"].tolist() == flat["label_rows"].tolist() == [[0, 0, 0, 1, 1, 1, 1, 1, 2, 2]]
    assert flat["positions"].tolist() == [[0, 1, 2, 0, 1, 2, 3, 4, 0, 1]]
    assert flat["flat"].targets.offsets.tolist() == [0, 3, 8, 10]
    assert flat["flat"].targets.longest == 5
    assert flat["layout"]["supervised"].tolist() == [1, 2, 4, 5, 6, 7, 9]
    assert flat["layout"]["predicting"].tolist() == [0, 1, 3, 4, 5, 6, 8]


def test_labels_that_were_changed_take_no_positions_along():
    batch = training_batch([[example] for example in CAUSAL], pad_id=1)
    batch["labels"][0, 1] = IGNORED
    assert "layout" not in flatten(batch, batch["layout"])


def test_the_sides_of_an_encoder_decoder_have_lengths_of_their_own():
    batch = training_batch([[example] for example in SEQ2SEQ], pad_id=1)
    flat = flatten(batch, batch["layout"])
    assert flat["input_ids"].tolist() == [[5, 6, 7, 2, 8, 2, 4, 9, 2]]
    assert flat["labels"].tolist() == [[6, 2, 9, 3, 4, 2, 3, 4, 2]]
    assert flat["label_rows"].tolist() == [[0, 0, 1, 1, 1, 1, 2, 2, 2]]
    assert [side.offsets.tolist() for side in flat["flat"]] == [[0, 2, 6, 9], [0, 4, 6, 9]]
    assert flat["layout"]["supervised"].tolist() == list(range(9))


def test_answers_and_padded_batches_are_those_of_sdpa(monkeypatch):
    stand_in = varlen_kernel.install(monkeypatch, "torch")
    model = made("Mistral")
    ids = torch.tensor([[1, 5, 6, 7], [8, 9, 3, 4]])
    mask = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]])
    options = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 1}
    with torch.no_grad():
        before = model(ids, attention_mask=mask).logits, model.generate(ids, attention_mask=mask, **options)
        flash.install(model)
        after = model(ids, attention_mask=mask).logits, model.generate(ids, attention_mask=mask, **options)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert not stand_in.calls


def test_a_kernel_that_mixes_examples_is_not_used(monkeypatch, caplog):
    stand_in = varlen_kernel.install(monkeypatch, "torch")
    inner = stand_in.varlen_attn

    def mixed(q, k, v, offsets, *_, **options):
        whole = offsets[[0, -1]]
        return inner(q, k, v, whole, whole, len(q), len(q), **options)

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", mixed)
    forward = forward_of("Llama", varlen=True, flash=True)
    with caplog.at_level("INFO"):
        found = step(forward, [[example] for example in CAUSAL])
    assert forward.kernels.packing_is_equivalent is False
    assert "padding is kept: examples of an unpadded sequence attend to each other" in caplog.text
    assert_same(found, step(forward_of("Llama"), [[example] for example in CAUSAL]))


def test_packing_is_checked_with_the_kernel(monkeypatch):
    stand_in = varlen_kernel.install(monkeypatch, "torch")
    forward = forward_of("Llama", varlen=True, flash=True)
    difference = forward.check_packing(CAUSAL, 1)
    assert difference is not None
    assert difference < 1e-5
    assert stand_in.calls[-1].offsets == ([0, 3, 8, 10], [0, 3, 8, 10])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_torchs_kernels_take_these_arguments(dtype):
    """On the meta device, which computes shapes only: with dropout another function of torch is called."""
    query, key = (torch.empty(1, 10, heads, 8, dtype=dtype, device="meta", requires_grad=True) for heads in (4, 2))
    offsets = torch.empty(3, dtype=torch.int32, device="meta")
    for dropout, window in ((0.0, None), (0.1, 3)):
        options = flash.Options(causal=True, scale=0.3, dropout=dropout, window=window)
        out = flash._of_torch((query, key, key), [offsets] * 2, [6, 6], options)
        out.sum().backward()
        assert out.shape == query.shape
        assert key.grad is not None


def test_a_window_of_an_encoder_is_not_taken():
    """transformers' mask keeps distances up to the window, its FlashAttention one less."""
    heads, lengths = torch.zeros(1, 2, 3, 8), torch.tensor([0, 3])
    named = {"cu_seq_lens_q": lengths, "cu_seq_lens_k": lengths, "max_length_q": 3, "max_length_k": 3}
    with pytest.raises(NotImplementedError, match="cu_seq_lens"):
        flash._attention(torch.nn.Identity(), heads, heads, heads, None, is_causal=False, sliding_window=2, **named)


def test_half_of_the_heads_decides_the_dtype():
    query, value = torch.zeros(2), torch.zeros(2, dtype=torch.bfloat16)
    assert {x.dtype for x in flash._in_half(query, query, value)} == {torch.bfloat16}
    with torch.autocast("cpu", torch.bfloat16):
        assert {x.dtype for x in flash._in_half(query, query, query)} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"hidden_size": 64, "num_attention_heads": 4}, None),
        ({"relative_attention_num_buckets": 32}, "its relative position bias is added to the attention scores"),
        ({"text_config": {"hidden_size": 64, "attn_logit_softcapping": 50.0}}, "its attention scores are capped"),
        ({"attention_chunk_size": 8192}, "it attends in chunks"),
        ({"model_type": "gpt_oss"}, "it has attention sinks"),
        ({"hidden_size": 60, "num_attention_heads": 5}, "its attention heads have 12 dimensions"),
        ({"head_dim": 512, "hidden_size": 64}, "its attention heads have 512 dimensions"),
    ],
    ids=lambda value: None if isinstance(value, dict) else str(value)[:24],
)
def test_what_an_architecture_says(config, why):
    found = installed.unfit(config)
    assert found is None if why is None else found is not None and found.startswith(why)


@pytest.mark.parametrize(
    ("available", "capability", "hip", "why"),
    [
        (False, (0, 0), None, "torch finds no CUDA GPU on this machine"),
        (True, (7, 5), None, "Tesla T4 has compute capability 7.5, and it needs 8.0 (Ampere) or more"),
        (True, (9, 0), "6.4", "it is not tested on ROCm"),
        (True, (8, 6), None, None),
    ],
)
def test_what_a_machine_says(available, capability, hip, why, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: available)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda: capability)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "Tesla T4")
    monkeypatch.setattr("torch.version.hip", hip)
    assert installed.unavailable() == why


@pytest.mark.parametrize(
    ("packages", "major", "name"),
    [
        ((), 9, "torch"),
        (("flash_attn",), 9, "flash_attention_2"),
        (("flash_attn", "flash_attn_interface"), 9, "flash_attention_3"),
        (("flash_attn", "flash_attn_interface"), 8, "flash_attention_2"),
    ],
)
def test_the_kernel_is_the_fastest_that_is_installed(packages, major, name, monkeypatch):
    monkeypatch.setattr(installed, "find_spec", lambda module: module in packages or module.startswith("torch."))
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda: (major, 0))
    assert installed.kernel_name() == name
