"""Memory counted without numbers: against hand-computed sizes and against what torch really makes."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from llmft.data.batching.collate import training_batch
from llmft.data.tokenization.codec import EncodedExample
from llmft.estimate.gpu import CONTEXT_BYTES, GIB, available_gpu_bytes, smallest_card
from llmft.estimate.memory import MALLOC_BYTES, largest_batch, predict_memory
from llmft.estimate.memory_tracker import MemoryTracker
from llmft.estimate.meta_model import MetaModel
from llmft.estimate.suggestions import Suggestion, suggest
from llmft.models.backbone.open import Backbone
from llmft.utils.oom import is_out_of_memory

F = 4  # bytes of a float32
ROWS = ("data=alpaca", "data.path=sample", "data.limit=20", "data.batch_size=4")


def test_the_ledger_counts_what_is_held_and_forgets_what_is_freed():
    known = torch.zeros(1000)
    with MemoryTracker(known) as ledger:
        view = known[:10]  # no memory of its own
        assert (ledger.live, ledger.peak) == (0, 0)
        a = known + 1
        b = a * 2
        assert ledger.live == 2 * 1000 * F
        del a
        assert ledger.live == 1000 * F
        c = torch.ones(10)
    assert ledger.peak == 2 * 1000 * F
    assert (view.numel(), b.numel(), c.numel()) == (10, 1000, 10)


def outlined(load_config, *overrides):
    cfg = load_config(*overrides)
    return MetaModel(cfg, Backbone.open(cfg))


def test_sizes_by_hand(load_config):
    outline = outlined(load_config, "model=tiny_gpt2", "peft=none")
    vocabulary, hidden, layers, positions = 257, 64, 2, 4096
    block = 12 * hidden**2 + 13 * hidden
    parameters = (vocabulary + positions) * hidden + layers * block + 2 * hidden
    assert outline.counts == {"total": parameters, "trainable": parameters}
    assert outline.weights() == parameters * F
    assert outline.gradients() == parameters * F
    assert outline.optimizer()[0] - 2 * parameters * F in range(0, 1000)  # two states, and a counter for each weight

    outline = outlined(load_config, "model=tiny_gpt2", "peft=lora", "peft.r=8")
    adapter = layers * 8 * (hidden + 3 * hidden)  # c_attn alone
    assert outline.counts["trainable"] == adapter
    assert outline.gradients() == adapter * F


def test_an_evaluation_in_float32_takes_two_more_bytes_of_each_weight_in_bfloat16(load_config):
    line = ("model=tiny_gpt2", "peft=lora", "model.dtype=bfloat16")
    asked = [outlined(load_config, *line, f"{key}.dtype=float32") for key in ("evaluate", "generation")]
    frozen = asked[0].counts["total"] - asked[0].counts["trainable"]
    assert [outline.converted() for outline in asked] == [2 * frozen, 2 * frozen]
    assert outlined(load_config, *line).converted() == 0
    assert outlined(load_config, "model=tiny_gpt2", "peft=lora", "evaluate.dtype=float32").converted() == 0


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("model", ["tiny_t5", "tiny_gpt2", "tiny_llama", "tiny_gemma"])
def test_activations_are_what_torch_makes(model, precision, load_config, built):
    overrides = (*ROWS, f"model={model}", "peft=none", "model.gradient_checkpointing=false", "model.padding=kept")
    outline = outlined(load_config, *overrides, f"trainer.precision={precision}")
    data, module = built(*overrides)
    rows = data.encoded["train"]
    batch = training_batch([[rows[row] for row in line] for line in largest_batch(data, outline.cfg)], data.pad_id)
    predicted = outline.activations(batch)
    weights = list(module.model.parameters())
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    gradients = [w.grad for w in weights if w.grad is not None]
    with MemoryTracker(*weights, *module.model.buffers(), *gradients) as ledger:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16-mixed"):
            total, _ = module.forward_pass.loss_sum(batch)
        total.backward()
    assert predicted == pytest.approx(ledger.peak, rel=0.05)


@pytest.mark.parametrize("soft_cap", [None, 30.0], ids=["head-in-chunks", "capped-logits"])
def test_weighted_rows_and_capped_logits_are_counted(soft_cap, load_config):
    cfg = load_config("model=tiny_gemma", "peft=none", "trainer.accelerator=cpu")
    backbone = Backbone.open(cfg)
    backbone.config.final_logit_softcapping = soft_cap
    row = EncodedExample([5] * 512, [6] * 512, 1, 511, 511)
    plain, weighted = (training_batch([[replace(row, weights=w)]], 0) for w in (None, [0.5] * 512))
    outline = MetaModel(cfg, backbone)
    assert outline.activations(weighted) == pytest.approx(outline.activations(plain), rel=0.01)


def test_checkpointing_and_small_batches_show(load_config, encoded):
    def activations(*more):
        outline = outlined(load_config, *ROWS, "model=tiny_llama", "peft=none", *more)
        data = encoded(*ROWS, "model=tiny_llama", "peft=none", *more)
        return predict_memory(outline, data).activations - MALLOC_BYTES

    most = activations()
    assert activations("model.gradient_checkpointing=true") < 0.8 * most
    assert activations("data.batch_size=2") < 0.7 * most


@pytest.mark.parametrize(("kind", "checkpointed"), [("tiny_llama", "true"), ("bart", "false")])
def test_flash_attention_holds_no_mask_and_no_padding(kind, checkpointed, load_config, tmp_path):
    """Per layer and packed sequence, SDPA on a GPU holds a mask of tokens times tokens, here in bfloat16."""
    from transformers import BartConfig

    model = [f"model={kind}"]
    if kind == "bart":
        size: Any = {
            "encoder_layers": 1,
            "decoder_layers": 1,
            "d_model": 64,
            "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64,
        }
        BartConfig(
            **size, vocab_size=300, decoder_start_token_id=2, encoder_attention_heads=4, decoder_attention_heads=4
        ).save_pretrained(tmp_path)
        model = ["model=flan_t5_small", f"model.path={tmp_path}", "model.dtype=float32"]
    given = [*model, "peft=none", "trainer.accelerator=gpu", "trainer.precision=bf16-mixed"]
    given += [f"model.gradient_checkpointing={checkpointed}"]
    rows = [EncodedExample([5] * 256, [6] * 256, 1, 255, 255, False, False, "", 0, "") for _ in range(4)]
    packed, single = (training_batch(lines, 0) for lines in ([rows], [[row] for row in rows]))
    peaks = {}
    for attention in ("sdpa", "flash", "flex"):
        outline = outlined(load_config, *given, f"model.attention={attention}")
        peaks[attention] = [outline.activations(batch) for batch in (packed, single)]
    assert peaks["flash"][0] == pytest.approx(peaks["flash"][1], rel=0.01)
    assert peaks["flash"][0] < peaks["sdpa"][0] - 2 * 1024**2
    assert peaks["flex"] == pytest.approx(peaks["flash"], rel=0.01)


def test_processes_share_what_fsdp_shares(load_config, encoded):
    def parts(*more):
        outline = outlined(load_config, *ROWS, "model=tiny_gpt2", "peft=none", "trainer.accelerator=cpu", *more)
        data = encoded(*ROWS, "model=tiny_gpt2", "peft=none")
        return predict_memory(outline, data)

    one, two = parts(), parts("trainer.strategy=fsdp", "trainer.devices=2")
    assert (two.weights, two.gradients) == (one.weights // 2, one.gradients // 2)
    copies = parts("trainer.strategy=ddp", "trainer.devices=2")
    assert (copies.weights, copies.gradients) == (one.weights, one.gradients)
    assert copies.activations == pytest.approx(one.activations + 1.25 * one.gradients, abs=10)


def test_changes_come_cheapest_first_and_keep_the_window(load_config):
    cfg = load_config(*ROWS, "model=tiny_gpt2", "peft=none", "trainer.accumulate_grad_batches=3")
    found = list(suggest(cfg))
    assert found[0].overrides == "data.batch_size=2 trainer.accumulate_grad_batches=6"
    assert found[2].overrides == "model.gradient_checkpointing=true"
    assert "peft=lora" in [change.overrides for change in found]
    for change in found:
        changed = change.apply(cfg)
        assert changed.data.batch_size * changed.trainer.accumulate_grad_batches == 12
    lora = next(change for change in found if change.overrides == "peft=lora").apply(cfg)
    assert (lora.peft.method, cfg.peft.method) == ("lora", "none")


def test_the_first_change_that_fits_is_taken_else_the_smallest():
    a, b, c = (Suggestion({name: 1}, "") for name in "abc")
    assert Suggestion.first_that_fits([(a, 30), (b, 10), (c, 5)], 10) == replace(b, peak=10, fits=True)
    assert Suggestion.first_that_fits([(a, 30), (b, 20), (c, 25)], 10) == replace(b, peak=20, fits=False)
    assert Suggestion.first_that_fits([], 10) is None


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"), True),
        (OSError(12, "Cannot allocate memory"), True),
        (OSError(28, "No space left on device"), False),
        (RuntimeError("shapes do not fit"), False),
    ],
)
def test_what_is_a_shortage_of_memory(error, is_one):
    assert is_out_of_memory(error) is is_one


def test_fsdp_gathers_two_layers_and_what_is_in_none(load_config):
    line = ("model=tiny_gpt2", "peft=none", "trainer.strategy=fsdp", "trainer.devices=2")
    rest, layer = (257 + 4096) * 64 + 2 * 64, 12 * 64**2 + 13 * 64
    # weights, and gradients before and during their reduction
    assert outlined(load_config, *line).gathered() == F * (rest + 2 * layer) + 2 * F * (rest + layer)
    half = outlined(load_config, *line, "trainer.precision=bf16-mixed").gathered()
    assert half == 2 * (rest + 2 * layer) + (2 + F) * (rest + layer)


def test_states_of_bitsandbytes(load_config):
    line = ("model=tiny_gpt2", "peft=none", "trainer=gpu")
    eight = outlined(load_config, *line, "optim=adamw_8bit")
    large = [p.numel() for p in eight.trained if p.numel() >= 4096]
    small = eight.counts["trainable"] - sum(large)
    scales = sum(-(-n // 256) for n in large)
    assert eight.optimizer() == (2 * sum(large) + 2 * F * scales + 8 * small, 0)
    paged = outlined(load_config, *line, "optim=paged_adamw", "optim.fallback=true", "optim.bits=32")
    assert paged.optimizer() == (8 * sum(n for n in (p.numel() for p in paged.trained) if n < 100_000), 0)


def test_layers_of_a_quantized_base(load_config):
    outline = outlined(load_config, "model=tiny_gpt2", "peft=qlora", "peft.r=8")
    linear = 2 * 12 * 64**2  # Conv1D, which bitsandbytes quantizes too; biases, norms and embeddings stay float32
    rest, each = 257 * 64 + 4096 * 64 + 2 * 13 * 64 + 2 * 64 + 2 * 8 * 4 * 64, 0.5 + 1 / 64 + 4 / (64 * 256)
    assert outline.weights() == -int(-(linear * each + F * rest) // 1)


def test_the_smallest_card():
    assert [smallest_card(int(gib * GIB)) for gib in (1, 7.76, 7.8, 22, 23, 79, 80)] == [8, 8, 16, 24, 40, 80, None]


def test_what_is_free_on_a_gpu(monkeypatch):
    assert available_gpu_bytes(1.5) == 1.5 * GIB
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (10 * GIB, 24 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 3 * GIB)
    assert available_gpu_bytes() == 13 * GIB + CONTEXT_BYTES
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 14 * GIB)
    assert available_gpu_bytes() == 24 * GIB


def test_a_gpu_holds_its_context_and_fragments(load_config, encoded):
    line = (*ROWS, "model=tiny_gpt2", "peft=none", "trainer=gpu")
    found = predict_memory(outlined(load_config, *line), encoded(*ROWS, "model=tiny_gpt2", "peft=none"))
    assert found.process == CONTEXT_BYTES
    assert found.allocator == int(found.activations / 10)
    assert found.peak == CONTEXT_BYTES + sum((found.weights, found.gradients, found.optimizer, found.activations, found.allocator))  # fmt: skip


def test_long_sequences_grow_as_they_should(load_config):
    tokens = 32_768

    def activations(layers, tokens, *more):
        cfg = load_config("model=tiny_llama", "peft=none", "trainer=gpu", "model.attention=sdpa", *more)
        backbone = Backbone.open(cfg)
        backbone.config.num_hidden_layers = layers
        ids = torch.zeros(1, tokens, dtype=torch.int64)
        labels = ids.masked_fill(torch.arange(tokens) < tokens - 8, -100)
        batch = {"input_ids": ids, "attention_mask": ids + 1, "labels": labels, "places": []}
        return MetaModel(cfg, backbone).activations(batch), backbone.config.hidden_size

    checkpointed = "model.gradient_checkpointing=true"
    (two, hidden), (four, _) = (activations(layers, tokens, checkpointed) for layers in (2, 4))
    assert four - two == 2 * tokens * hidden * F  # the input of each layer, and nothing else
    offloaded = [activations(layers, tokens, checkpointed, "model.activation_offload=true")[0] for layers in (2, 4)]
    assert offloaded == [offloaded[0]] * 2  # one layer's input at a time
    half, _ = activations(2, tokens // 2, checkpointed)
    assert two / half == pytest.approx(2, rel=0.01)  # no matrix of tokens x tokens
    (more, _), (most, _) = (activations(layers, tokens) for layers in (2, 4))
    assert most - more > 10 * (four - two)
    (first, _), (both, _) = (activations(layers, tokens, "model.gradient_checkpointing=2") for layers in (2, 4))
    assert both - first == (four - two) // 2 + (most - more) // 2  # a recomputed layer and one that is not
