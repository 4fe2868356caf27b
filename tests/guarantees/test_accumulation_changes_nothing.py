"""8x1 = 4x2 = 2x4 = 1x8, and windows that end short: same loss, gradient norm and learning rate, to 1e-5, for both families."""

import csv

import pytest
import torch

from llmft.config.groups import prompt_config
from llmft.data.batching.collate import training_batch
from llmft.data.records import Turn
from llmft.data.tokenization.codec import IGNORED
from llmft.models.backbone.open import Backbone
from tests.conftest import TINY, chat_row, write_rows

ANSWERS = ["a", "some words more", "b c", "a longer answer than all the others are", "d", "e f g h", "i", "jk"] * 2
WATCHED = ("train/loss", "train/grad_norm", "train/lr", "train/tokens", "val/loss", "val/perplexity")


def losses(llmft, tmp_path, model, peft, batch, accumulate, rows=18):
    file = write_rows(tmp_path / "rows.jsonl", *(chat_row(f"Q{n} {'?' * n}", (ANSWERS * 2)[n]) for n in range(rows)))
    name = f"{peft}-{batch}x{accumulate}"
    code, _, err = llmft(
        f"model={model}", f"peft={peft}", f"data.path={file}", f"data.batch_size={batch}", f"trainer.accumulate_grad_batches={accumulate}",
        "trainer.max_epochs=2", "trainer.log_every_n_steps=1", "optim.lr=1e-3", f"output_dir={name}", "data.shuffle=false", "logger=none",
        "questions=0", "evaluate.rows=0", "report.write=false", "callbacks.samples.number=0", "callbacks.gradient_clipping.max_norm=0.5", "model.dropout=0", *(["peft.dropout=0"] if peft == "lora" else []),
    )  # fmt: skip
    assert code == 0, err
    table = list(csv.DictReader((tmp_path / name / "metrics.csv").open()))
    return [{name: float(row[name]) for name in WATCHED if row[name]} for row in table]


@pytest.mark.parametrize(
    ("model", "peft"),
    [
        ("tiny_t5", "lora"),
        pytest.param("tiny_t5", "none", marks=pytest.mark.slow),
        *(pytest.param("tiny_gpt2", peft, marks=pytest.mark.slow) for peft in ("none", "lora")),
        *(pytest.param("tiny_llama", peft, marks=pytest.mark.slow) for peft in ("none", "lora")),
    ],
)
def test_accumulation_changes_nothing(model, peft, llmft, tmp_path):
    # 16 training rows: with 8x1, 2x4 and 1x8 two steps an epoch; 2 validation rows
    expected_rows = losses(llmft, tmp_path, model, peft, 8, 1)
    assert [set(row) for row in expected_rows][1:] == [set(WATCHED[:4]), set(WATCHED)] * 2
    for batch, accumulate in ((2, 4), (1, 8)):
        parts = losses(llmft, tmp_path, model, peft, batch, accumulate)
        assert len(parts) == len(expected_rows)
        for expected, found in zip(expected_rows, parts, strict=True):
            assert found == pytest.approx(expected, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("model", [pytest.param("tiny_t5", marks=pytest.mark.slow), "tiny_llama"])
def test_a_short_last_window_is_divided_by_its_own_tokens(model, llmft, tmp_path):
    # 16 rows: windows of 6, 6 and 4 rows
    expected_rows = losses(llmft, tmp_path, model, "none", 6, 1)
    parts = losses(llmft, tmp_path, model, "none", 2, 3)
    assert len(expected_rows) == len(parts) == 7
    for expected, found in zip(expected_rows, parts, strict=True):
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("model", TINY)
def test_the_loss_is_what_plain_torch_computes(model, load_config):
    cfg = load_config(f"model={model}", "peft=none")
    backbone = Backbone(cfg.model, prompt=prompt_config("plain"), peft=cfg.peft)
    codec = backbone.codec
    rows = [
        codec.encode(codec.template.render((Turn("user", "Q" * n),)), answer)
        for n, answer in enumerate(ANSWERS[:5], start=1)
    ]
    net = backbone.load_adapted().eval()
    total, tokens = backbone.family(net).loss_sum(training_batch([[row] for row in rows], codec.tokenizer.pad_token_id))
    nats, count = 0.0, 0
    with torch.no_grad():
        for row in rows:  # one at a time: no padding, no mask, no shared code
            ids = torch.tensor([row.input_ids])
            if cfg.model.family == "seq2seq":
                target = row.labels
                logits = net(input_ids=ids, decoder_input_ids=torch.tensor([[0, *target[:-1]]])).logits[0]
            else:
                target = row.labels[1:]
                logits = net(input_ids=ids).logits[0, :-1]
            probabilities = logits.double().log_softmax(-1)
            for position, label in enumerate(target):
                if label != IGNORED:
                    nats -= float(probabilities[position, label])
                    count += 1
    assert int(tokens) == count
    assert total.item() == pytest.approx(nats, rel=1e-5)
