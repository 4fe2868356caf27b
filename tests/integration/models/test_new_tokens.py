"""New tokens: one id each, trained and saved, in every family."""

from typing import Any

import pytest
import torch

from llmft.models.backbone.open import Backbone, TrainedBackbone
from llmft.runs.open import open_run
from tests.conftest import write_rows

TOKENS = "model.new_tokens=['<note>','\n\n']"
RUN = (TOKENS, "data=alpaca", "data.path=rows.jsonl", "trainer.max_steps=3", "trainer.max_epochs=-1", "optim.lr=1e-2", "scheduler=constant", "questions=0",
       "evaluate.rows=2", "report.write=false", "logger=none", "callbacks.samples.number=0", "generation.max_new_tokens=4", "output_dir=run")  # fmt: skip


def rows(folder):
    made = [
        {"instruction": f"Say {n} <note> aloud.", "input": "", "output": f"<note> {n}\n\nso it is"} for n in range(8)
    ]
    return write_rows(folder / "rows.jsonl", *made)


@pytest.mark.parametrize(
    ("model", "peft"),
    [
        ("tiny_t5", "lora"),
        pytest.param("tiny_llama", "qlora", marks=pytest.mark.slow),
        pytest.param("tiny_gpt2", "lora", marks=pytest.mark.slow),
        pytest.param("tiny_gemma", "dora", marks=pytest.mark.slow),
        pytest.param("tiny_t5", "none", marks=pytest.mark.slow),
        pytest.param("tiny_llama", "unfreeze", marks=pytest.mark.slow),
    ],
)
def test_new_tokens_are_trained_saved_and_loaded(model, peft, llmft, tmp_path):
    rows(tmp_path)
    code, _, err = llmft(f"model={model}", f"peft={peft}", *RUN)
    assert code == 0, err
    cfg: Any = open_run(str(tmp_path / "run"))[1]
    backbone = TrainedBackbone(tmp_path / "run" / "model", cfg)
    trained, tokenizer = backbone.load(), backbone.tokenizer
    before = Backbone(cfg.model).load()
    ids = before.new_token_ids
    assert ids == [len(tokenizer) - 2, len(tokenizer) - 1]
    assert tokenizer("a<note>b\n\n", add_special_tokens=False)["input_ids"][1::2] == ids
    assert torch.equal(before.get_input_embeddings().weight[ids[0]], before.get_input_embeddings().weight[ids[1]])
    merged = trained.merge_and_unload() if peft in ("lora", "dora") else trained
    for name in ("get_input_embeddings", "get_output_embeddings"):
        old, new = (getattr(m, name)().weight.detach() for m in (before, merged))
        assert (new[ids] != old[ids]).any(dim=1).all(), name
        if peft in ("lora", "dora", "qlora"):  # and no other row
            others = [row for row in range(len(old)) if row not in ids]
            assert torch.equal(new[others], old[others])
    # what was in memory at the end is what is loaded
    state = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    if peft in ("lora", "dora", "qlora"):
        assert any("trainable_tokens" in key for key in state)
        size = sum(f.stat().st_size for f in (tmp_path / "run" / "model").glob("adapter_model*"))
        assert size < 4 * sum(value.numel() for value in state.values()) + 50_000


@pytest.mark.parametrize("peft", ["peft=head", "peft=unfreeze peft.schedule=[[0,1]]"])
def test_tokens_that_would_not_be_trained_are_refused(peft, load):
    from llmft.config.schema import TrainConfig
    from llmft.config.validate import check
    from llmft.utils.errors import UserError

    with pytest.raises(UserError, match=r"model.new_tokens: their embeddings must be trained"):
        check(load("model=tiny_t5", TOKENS, *peft.split()), TrainConfig)


def test_embedding_rows_are_never_removed(load_config):
    from llmft.models.backbone import new_tokens

    cfg = load_config("model=tiny_gpt2").model
    model = Backbone(cfg).load()
    model.resize_token_embeddings(300, mean_resizing=False)
    cfg = cfg.replaced({"new_tokens": ["<a>"]})
    new_tokens.resize_embeddings(model, Backbone(cfg).tokenizer, cfg.new_tokens)
    assert len(model.get_input_embeddings().weight) == 300
    assert model.new_token_ids == [257]
