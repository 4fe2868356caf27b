"""16-mixed on the CPU, which torch has though Lightning does not offer it: what overflows, what is skipped, what is counted."""

from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from torch.utils.data import DataLoader

from llmft.callbacks.gradient_clipping import GradientClipping
from llmft.data.batching.collate import training_batch
from llmft.data.tokenization.codec import EncodedExample
from llmft.models.causal import CausalForward
from llmft.models.chunked_head import chunked_cross_entropy_sum
from llmft.models.float16 import Float16
from llmft.models.module import InstructionModule

STEPS = 6
LARGEST = 2.0**16  # the first loss scale of torch


def batches(tokens: int = 48) -> list[dict[str, Any]]:
    torch.manual_seed(1)
    rows = [torch.randint(0, 11, (tokens,)).tolist() for _ in range(4 * STEPS)]
    examples = [EncodedExample(ids, ids, 1, tokens, tokens - 1) for ids in rows]
    return [training_batch([[a], [b]], pad_id=0) for a, b in zip(examples[::2], examples[1::2], strict=True)]


class Recorder(pl.Callback):
    """What each optimizer step logged and left behind."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        self.weights: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        if not pl_module.window_open:
            self.steps.append({name: float(value) for name, value in trainer.callback_metrics.items()})
            self.weights.append(next(pl_module.parameters()).detach().clone())


def trained(first_scale: float) -> tuple[InstructionModule, Recorder]:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    model = LlamaForCausalLM(LlamaConfig(vocab_size=11, num_key_value_heads=1, **sizes))
    module = InstructionModule(
        CausalForward(model),
        lambda parameters: torch.optim.AdamW(parameters, lr=0.01),
        lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5),
    )
    precision, recorder = (
        MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=first_scale)),
        Recorder(),
    )  # pyright: ignore[reportPrivateImportUsage]
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=1, accumulate_grad_batches=2, plugins=[precision], logger=False, use_distributed_sampler=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, callbacks=[GradientClipping(1e-3), recorder],
    )  # fmt: skip
    trainer.fit(module, DataLoader(batches(), batch_size=None))  # pyright: ignore[reportArgumentType]
    return module, recorder


def test_the_sum_of_a_batch_overflows_no_more_than_its_mean():
    module, recorder = trained(LARGEST)
    assert module.float16.factor == 2.0**-7  # 2 x 47 tokens
    assert [step["train/skipped_steps"] for step in recorder.steps] == [0] * STEPS
    assert [step["train/lr"] for step in recorder.steps] == [0.01 * 0.5**n for n in range(STEPS)]
    assert recorder.steps[0]["train/loss"] == pytest.approx(2.4, abs=0.1)  # of 11 ids by chance
    assert recorder.steps[0]["train/grad_norm"] < 1


def test_a_skipped_step_is_no_update(caplog):
    with caplog.at_level("WARNING"):
        module, recorder = trained(LARGEST * 2.0**40)
    first = [step["train/skipped_steps"] for step in recorder.steps]
    assert first == [1, 2, 3, 4, 5, 6]
    assert all(torch.equal(weights, recorder.weights[0]) for weights in recorder.weights)
    assert [step["train/lr"] for step in recorder.steps] == [0.01] * STEPS
    assert recorder.steps[-1]["train/clipped_share"] == 0
    assert [record.message for record in caplog.records if "float16" in record.message][1] == (
        "step 2: a gradient overflowed in float16 at a loss scale of 36,028,797,018,963,968: no update, and the learning rate "
        "waits (2 skipped)"
    )
    checkpoint: dict[str, Any] = {"state_dict": {}}
    module.on_save_checkpoint(checkpoint)
    assert checkpoint["float16"] == {"factor": 2.0**-7, "skipped": 6}


def test_the_first_batch_of_the_first_rank_decides_for_all():
    ranks = SimpleNamespace(broadcast=lambda _: 1000.0)
    state = Float16()
    assert float(state.scaled(torch.tensor(512.0), torch.tensor(3), ranks)) == 0.5
    other = Float16()
    other.load_state_dict(state.state_dict())
    assert float(other.scaled(torch.tensor(1024.0), torch.tensor(3), SimpleNamespace())) == 1.0


def test_a_loss_scale_beyond_float16_meets_the_gradients_in_float32():
    hidden = torch.full((1, 2), 1e-3, dtype=torch.float16, requires_grad=True)
    total, _ = chunked_cross_entropy_sum(hidden, torch.eye(2).half() * 0.1, None, torch.tensor([0]))
    (total * 2.0**17).backward()
    assert hidden.grad is not None
    assert hidden.grad.tolist() == [[pytest.approx(-0.05 * 2**17, rel=2e-3), pytest.approx(0.05 * 2**17, rel=2e-3)]]
