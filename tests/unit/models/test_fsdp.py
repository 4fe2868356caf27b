"""Two forked processes with sharded weights, of which only the first has loaded any, compute what one process does."""

import multiprocessing
from dataclasses import replace

import pytest
import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh

from llmft.data.batching.collate import training_batch
from llmft.data.tokenization.codec import IGNORED
from llmft.models.attention.flash import NAME
from llmft.models.attention.kernels import Kernels
from llmft.models.backbone.open import Backbone
from llmft.models.fsdp import full_tensor, shard
from tests.support import varlen_kernel

ROWS = (
    "data=alpaca",
    "data.path=sample",
    "data.limit=12",
    "data.batch_size=4",
    "model.dropout=0",
    "model.padding=kept",
)
CASES = {
    "full": ("model=tiny_t5", "peft=none"),
    "lora": ("model=tiny_llama", "peft=lora", "peft.dropout=0"),
    "lora-bfloat16": ("model=tiny_llama", "peft=lora", "peft.dropout=0", "model.dtype=bfloat16"),
    "qlora": ("model=tiny_gpt2", "peft=qlora", "peft.dropout=0"),
    "qlora-t5": ("model=tiny_t5", "peft=qlora", "peft.dropout=0", "peft.double_quant=false"),
    "new-tokens": ("model=tiny_llama", "peft=lora", "peft.dropout=0", "model.new_tokens=['<a>','<b>']"),
    "new-tokens-full": ("model=tiny_gpt2", "peft=none", "model.new_tokens=['<a>']"),
}

FAST = (("full", "32-true"), ("lora-bfloat16", "bf16-mixed"))


def in_rank_with_flash(rank, folder, cfg, batches):
    """In a forked process: FlashAttention (its stand-in) on sharded weights, on the batch of this rank."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    backbone = Backbone.open(cfg)
    torch.manual_seed(rank)
    model = backbone.load_adapted(meta=rank > 0)
    shard(model, init_device_mesh("cpu", (2,)))
    forward = backbone.family(model, Kernels(varlen=True, flash=True))
    losses = [gradients(forward, batch, "32-true") for batch in batches[rank]]
    torch.save(
        (forward.kernels.packing_is_equivalent, model.config._attn_implementation, losses), folder / f"{rank}.pt"
    )


def gradients(forward, batch, precision):
    """Loss, and gradients by name; both of rank 0 and of the other process, whose batches are equal."""
    forward.model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
        total, _ = forward.loss_sum(batch)
    total.backward()
    found = {name: full_tensor(p.grad) for name, p in forward.model.named_parameters() if p.grad is not None}
    return total.item(), found


def in_rank(rank, folder, cfg, batch, precision):
    """In a forked process: shard the model, whose weights rank 0 alone has, and save loss and gradients."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    backbone = Backbone.open(cfg)
    torch.manual_seed(rank)  # LoRA is initialized by rank 0
    model = backbone.load_adapted(meta=rank > 0)
    absent = {p.device.type for p in model.parameters()} == {"meta"}
    shard(model, init_device_mesh("cpu", (2,)), precision)
    torch.save((absent, *gradients(backbone.family(model), batch, precision)), folder / f"{rank}.pt")


@pytest.mark.parametrize(
    ("case", "precision"),
    [
        pytest.param(case, precision, marks=[] if (case, precision) in FAST else pytest.mark.slow)
        for case in CASES
        for precision in ("32-true", "bf16-mixed")
    ],
)
def test_two_processes_compute_what_one_does(case, precision, load_config, encoded, tmp_path):
    cfg, data = load_config(*ROWS, *CASES[case]), encoded(*ROWS, *CASES[case])
    batch = training_batch([[row] for row in data.encoded["train"][:4]], data.pad_id)
    fork = multiprocessing.get_context("fork")
    ranks = [fork.Process(target=in_rank, args=(rank, tmp_path, cfg, batch, precision)) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(100)
    (_, loss, found), (absent, *_) = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert absent
    torch.manual_seed(0)
    backbone = Backbone.open(cfg)
    one, expected = gradients(backbone.family(backbone.load_adapted()), batch, precision)
    exact = precision == "32-true"
    assert loss == pytest.approx(one, rel=1e-5 if exact else 1e-2)
    assert found.keys() == expected.keys()
    if exact:
        assert all(torch.allclose(found[name], gradient, rtol=1e-3, atol=1e-5) for name, gradient in expected.items())
    one, two = (torch.cat([each[name].flatten() for name in expected]) for each in (expected, found))
    assert (one - two).norm() <= (1e-4 if exact else 0.05) * one.norm()


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [(), ("model.gradient_checkpointing=true",), ("data.batching=packed", "data.pack_tokens=600")],
    ids=["rows", "recomputed", "packed"],
)
def test_examples_of_each_process_attend_by_flash(more, load_config, encoded, tmp_path, monkeypatch):
    """Sequences of other lengths in each process, and one without any label."""
    varlen_kernel.install(monkeypatch, "torch")
    line = (*ROWS, *CASES["lora"], *more)
    cfg, data = load_config(*line), encoded(*line)
    rows = data.encoded["train"]
    packed = "data.batching=packed" in more
    lines = (
        [[rows[:2], rows[2:3]], [rows[3:5], rows[5:7]]] if packed else [[rows[:1], rows[1:2]], [rows[2:3], rows[4:5]]]
    )
    empty = [[replace(row, labels=[IGNORED] * len(row.labels), supervised=0) for row in line] for line in lines[1]]
    each = [
        [training_batch(lines[0], data.pad_id)] * 2,
        [training_batch(empty, data.pad_id), training_batch(lines[1], data.pad_id)],
    ]
    fork = multiprocessing.get_context("fork")
    ranks = [fork.Process(target=in_rank_with_flash, args=(rank, tmp_path, cfg, each)) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(100)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert first[:2] == second[:2] == (True, NAME)
    torch.manual_seed(0)
    backbone = Backbone.open(cfg)
    forward = backbone.family(backbone.load_adapted())
    one, expected = gradients(forward, training_batch([*lines[0], *lines[1]], data.pad_id), "32-true")
    assert first[2][1][0] + second[2][1][0] == pytest.approx(one, rel=1e-5)
    for name, gradient in expected.items():
        assert torch.allclose(first[2][1][1][name], gradient / 2, rtol=1e-3, atol=1e-5)  # FSDP takes the mean
