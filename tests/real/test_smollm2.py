"""A real tokenizer with merges and a real chat template; a real model that learns."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from llmft.config.groups import prompt_config
from llmft.data.records import Turn
from llmft.data.tokenization.build import codec_for
from llmft.models.backbone.open import Backbone
from tests.conftest import SHARED, cli

pytestmark = [pytest.mark.real, pytest.mark.slow]


@pytest.fixture
def tokenizer(load_config):
    return Backbone(load_config("model=smollm2_135m").model).tokenizer


def test_the_chat_prompt_is_the_templates_own_ids(tokenizer):
    codec, name = codec_for("causal", tokenizer, prompt_config("auto"), None, "answer")
    assert name == "chat"
    context = (Turn("system", "Be brief."), Turn("user", "Hi"))
    row = codec.encode(codec.template.render(context), "Hello!")
    expected = tokenizer.apply_chat_template([turn.message() for turn in context], add_generation_prompt=True)[
        "input_ids"
    ]
    assert row.input_ids[: row.prompt_length] == expected
    # <|im_end|> (id 2) is pad and EOS at once: the one behind the answer is trained, the others are not
    assert row.labels[row.prompt_length :] == [*tokenizer("Hello!")["input_ids"], 2]
    assert row.input_ids.count(2) == 3
    assert row.labels.count(2) == 1


@pytest.mark.parametrize("name", ["chat", "alpaca", "plain", "t5", "inst"])
def test_prompt_ids_are_a_prefix_and_text_comes_back(name, tokenizer):
    codec, _ = codec_for("causal", tokenizer, prompt_config(name), None, "answer")
    texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60) | st.sampled_from(
        ["<|im_end|>", "<|im_start|>user\nx", " a", "\n\nb", "1. "]
    )

    @settings(max_examples=150, deadline=None)
    @given(question=texts, answer=texts)
    def holds(question, answer):
        prompt = codec.template.render((Turn("user", question),))
        row = codec.encode(prompt, answer)
        assert row.input_ids[: row.prompt_length] == codec.prompt_ids(prompt)
        trained = [label for label in row.labels if label != -100]
        assert trained[-1] == codec.stop_id
        assert codec.stop_id not in trained[:-1]
        assert row.lost or codec.decode(trained) == answer  # a few bytes are not in this vocabulary

    holds()


def test_a_short_lora_run_on_real_rows_learns_and_loads_with_plain_peft(tmp_path):
    rows = SHARED / "alpaca.json"
    if not rows.exists():
        pytest.skip(f"the real rows are not here: {rows}")
    done = cli(
        "model=smollm2_135m", "data=alpaca", "prompt=chat", f"data.path={rows}", "data.limit=60", "trainer.max_steps=6", "optim.lr=1e-3",
        "data.split_by=shuffle", "scheduler=constant", "questions=1", "callbacks.samples.number=1", "generation.max_new_tokens=24", "output_dir=run",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["metrics"]["after"]["val/loss"] < 0.9 * record["metrics"]["before"]["val/loss"]
    from peft import PeftModel

    base = AutoModelForCausalLM.from_pretrained(record["model"]["path"], dtype=torch.float32)
    model: torch.nn.Module = PeftModel.from_pretrained(base, tmp_path / "run" / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Name a fruit."}], add_generation_prompt=True, return_tensors="pt"
    )
    out = model.generate(**ids, max_new_tokens=24, do_sample=False)  # pyright: ignore[reportCallIssue]
    plain = tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
    asked = cli("answer", "run=run", "question=Name a fruit.", "format=json", cwd=tmp_path)
    assert asked.returncode == 0, asked.stderr
    assert json.loads(asked.stdout)["answer"] == plain
