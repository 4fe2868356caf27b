"""Learning from a larger model: the loss by hand, who is trained, and what is refused."""

import csv
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from llmft.data.batching.collate import training_batch
from llmft.models.architecture_check import architecture_faults
from llmft.models.backbone import tiny
from llmft.models.distillation import Teacher
from llmft.models.loss import divergence_sum, token_loss_sum

RUN = ("data=alpaca", "data.path=sample", "data.limit=16", "questions=0", "evaluate.rows=0", "report.write=false", "callbacks.samples.number=0",
       "trainer.max_steps=3", "trainer.log_every_n_steps=1")  # fmt: skip


def test_the_divergence_by_hand():
    ours, theirs = torch.tensor([[0.0, 0.0], [1.0, 0.0]]), torch.log(torch.tensor([[0.25, 0.75], [0.5, 0.5]]))
    first = 0.25 * torch.log(torch.tensor(0.25 / 0.5)) + 0.75 * torch.log(torch.tensor(0.75 / 0.5))
    p = torch.sigmoid(torch.tensor(1.0))
    second = 0.5 * torch.log(0.5 / p) + 0.5 * torch.log(0.5 / (1 - p))
    torch.testing.assert_close(divergence_sum(ours, theirs, 1.0), first + second)
    assert divergence_sum(theirs, theirs, 2.0) == 0
    # rows of a wider matrix that no token uses play no part
    torch.testing.assert_close(
        divergence_sum(ours, torch.nn.functional.pad(theirs, (0, 3), value=5.0), 1.0), first + second
    )


def test_a_temperature_keeps_the_size_of_small_gradients():
    generator = torch.Generator().manual_seed(0)
    told = torch.randn(5, 7, generator=generator) * 0.01
    sizes = []
    for temperature in (1.0, 4.0):
        logits = torch.zeros(5, 7, requires_grad=True)
        divergence_sum(logits, told, temperature).backward()
        assert logits.grad is not None
        sizes.append(float(logits.grad.norm()))
    assert sizes[1] == pytest.approx(sizes[0], rel=0.05)


@pytest.mark.parametrize("model", ["tiny_t5", "tiny_llama"])
def test_the_loss_in_training_is_mixed_and_in_validation_it_is_not(model, built):
    data, module = built(f"model={model}", "peft=lora", "model.dropout=0", "peft.dropout=0", *RUN)
    _, teacher = built(f"model={model}", "peft=none", "seed=1", *RUN)
    with torch.no_grad():
        for p in teacher.parameters():
            p.mul_(1.05)
    module.forward_pass.teacher = Teacher(teacher.forward_pass, 0.3, 2.0)
    batch = training_batch([[row] for row in data.encoded["train"][:3]], data.pad_id)
    logits, targets, _ = module.forward_pass.forward_targets(batch)
    nats, _ = token_loss_sum(logits, targets)
    expected = 0.7 * nats + 0.3 * divergence_sum(logits, teacher.forward_pass.forward_targets(batch)[0], 2.0)
    assert expected > nats * 0.7
    module.train()
    total, tokens = module.forward_pass.loss_sum(batch)
    torch.testing.assert_close(total, expected)
    module.eval()
    torch.testing.assert_close(module.forward_pass.loss_sum(batch), (nats, tokens))
    total.backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert not any("teacher" in name for name in module.state_dict())


@pytest.mark.slow
def test_a_run_with_a_teacher(llmft, tmp_path):
    tiny.build("gpt2", tmp_path / "large")
    weights = load_file(tmp_path / "large" / "model.safetensors")
    save_file({n: w * 1.1 for n, w in weights.items()}, tmp_path / "large" / "model.safetensors", {"format": "pt"})
    pupil = ("model=tiny_gpt2", "peft=lora", *RUN, "output_dir=small", "peft.distill_from=large")
    code, _, err = llmft(*pupil, "peft.distill_weight=1")
    assert code == 0, err
    rows = list(csv.DictReader((tmp_path / "small" / "metrics.csv").open()))[1:]
    # of nothing but the teacher, the loss is the divergence
    assert [float(r["train/loss"]) for r in rows] == pytest.approx([float(r["train/divergence"]) for r in rows], rel=1e-5)  # fmt: skip
    assert "train/perplexity" not in rows[0]
    assert float(rows[0]["train/divergence"]) > 0.1
    record = json.loads((tmp_path / "small" / "run.json").read_text())
    assert record["parameters"]["trainable"] == 2 * 16 * (64 + 192)
    state = torch.load(tmp_path / "small" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert all("lora_" in name for name in state)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("peft.distill_from=tiny_llama",), "its vocabulary is not that of tiny_gpt2"),
        (("peft.distill_from=tiny_gpt2",), "is the student itself"),
        (("peft.distill_from=./nowhere/at_all",), "model.path=./nowhere/at_all: no such folder"),
        (("peft.distill_from=tiny:bert",), "no such tiny model"),
    ],
)
def test_a_teacher_that_cannot_teach_is_refused_before_anything_is_loaded(overrides, message, load):
    from llmft.config.schema import TrainConfig
    from llmft.config.validate import check
    from llmft.utils.errors import UserError

    with pytest.raises(UserError) as error:
        check(load("model=tiny_gpt2", "peft=lora", *overrides), TrainConfig, architecture=architecture_faults)
    assert message in str(error.value)
