"""Evaluation loss and perplexity equal those of single examples, for any batch size and any batching."""

import pytest
import torch

from llmft.models.loss import TokenLoss
from tests.guarantees.reference import measured

WAYS = [
    *(f"data.batching=rows data.batch_size={size}" for size in (1, 2, 5, 12)),
    "data.batching=grouped data.batch_size=3",
    "data.batching=tokens data.tokens_per_batch=700",
    "data.batching=tokens data.tokens_per_batch=1",
    "data.batching=packed data.batch_size=1",
    "data.batching=packed data.batch_size=4 data.pack_tokens=900",
]


@torch.no_grad()
def evaluated(module, loader):
    sums = TokenLoss()
    for batch in loader:
        sums.add(*module.forward_pass.loss_sum(batch))
    return sums.mean(None)


@pytest.mark.parametrize(
    "model",
    ["tiny_t5", "tiny_llama", *(pytest.param(model, marks=pytest.mark.slow) for model in ("tiny_gpt2", "tiny_gemma"))],
)
def test_batching_changes_nothing(model, built, encoded):
    common = (
        f"model={model}",
        "peft=none",
        "data=alpaca",
        "data.path=sample",
        "data.limit=26",
        "data.split={val: 0.35, test: 0}",
    )
    data, module = built(*common)
    module.eval()
    single = measured(module.model, [(row.input_ids, row.labels) for row in data.encoded["val"]])
    for way in WAYS:
        other = encoded(*common, *way.split())
        assert [row.place for row in other.encoded["val"]] == [row.place for row in data.encoded["val"]]
        loss, tokens = evaluated(module, other.val_dataloader())
        assert tokens == single["tokens"], way
        assert loss == pytest.approx(single["loss"], rel=1e-5), way
        with torch.no_grad():
            trained = sum(module.forward_pass.loss_sum(batch)[1] for batch in other.train_dataloader())
        assert trained == sum(row.supervised for row in data.encoded["train"])


def test_a_run_logs_that_loss_and_its_exponential(llmft, built, tmp_path):
    common = ("model=tiny_t5", "peft=none", "data=alpaca", "data.path=sample", "data.limit=40")
    data, module = built(*common)
    module.eval()
    single = measured(module.model, [(row.input_ids, row.labels) for row in data.encoded["val"]])
    for way in ("rows", "packed"):
        code, _, err = llmft(*common, f"data.batching={way}", "trainer.max_steps=1", f"output_dir={way}", "questions=0", "evaluate.rows=0", "report.write=false",
                             "callbacks.samples.number=0")  # fmt: skip
        assert code == 0, err
        header, first, *_ = (tmp_path / way / "metrics.csv").read_text().splitlines()
        row = dict(zip(header.split(","), first.split(","), strict=True))
        assert float(row["val/loss"]) == pytest.approx(single["loss"], rel=1e-5)
        assert float(row["val/perplexity"]) == pytest.approx(single["perplexity"], rel=1e-5)
