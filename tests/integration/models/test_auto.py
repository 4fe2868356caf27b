"""``model=auto model.path=ANY``: family, LoRA targets and prompt come from the model, and are stored resolved."""

import pytest
from omegaconf import OmegaConf

from llmft.config.auto_model import resolve_model
from llmft.models.backbone.auto import with_lora_targets
from llmft.utils.errors import UserError
from tests.conftest import typed_config
from tests.support.twins import build

RUN = ("peft=lora", "data=alpaca", "data.path=sample", "data.limit=12", "data.max_prompt_tokens=700", "data.max_answer_tokens=700",
       "trainer.max_steps=1", "questions=0", "evaluate.rows=0", "report.write=false", "logger=none", "baseline=false",
       "callbacks.samples.number=0", "output_dir=run")  # fmt: skip


@pytest.mark.parametrize(
    ("twin", "family", "targets", "prompt"),
    [
        ("bart", "seq2seq", ["k_proj", "out_proj", "q_proj", "v_proj"], "t5"),
        pytest.param("phi3", "causal", ["o_proj", "qkv_proj"], "chat", marks=pytest.mark.slow),
        pytest.param("t5_untied", "seq2seq", ["k", "o", "q", "v"], "t5", marks=pytest.mark.slow),
    ],
)
def test_a_run_stores_what_it_found(twin, family, targets, prompt, llmft, tmp_path):
    build(twin, tmp_path / "model")
    code, _, err = llmft("model=auto", f"model.path={tmp_path / 'model'}", *RUN, "data.prompt=null")
    assert code == 0, err
    stored = OmegaConf.load(tmp_path / "run" / "config.yaml")
    assert (stored.model.family, list(stored.model.lora_targets)) == (family, targets)
    assert stored.model._target_.endswith({"seq2seq": "Seq2SeqForward", "causal": "CausalForward"}[family])
    said = (tmp_path / "run" / "log.txt").read_text()
    assert f"model=auto: family {family} (config.json); LoRA targets {', '.join(targets)}" in said
    assert "license not known: set model.license" in said
    assert f"prompt {prompt}" in said


@pytest.mark.parametrize(
    ("path", "targets"), [("tiny:t5", ["k", "o", "q", "v"]), ("tiny:gpt2", ["c_attn"]), ("tiny:llama", ["k_proj", "o_proj", "q_proj", "v_proj"])]
)  # fmt: skip
def test_targets_are_the_linear_layers_of_attention(path, targets, load):
    cfg = load("model=auto", f"model.path={path}")
    resolve_model(cfg)
    assert with_lora_targets(typed_config(cfg)).model.lora_targets == targets


def test_a_folder_without_a_config_is_refused(load, tmp_path):
    with pytest.raises(UserError, match=r"has no config\.json; set model=NAME"):
        resolve_model(load("model=auto", f"model.path={tmp_path}"))
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match=r"it is an adapter: pass its base as model\.path, and peft\.adapter"):
        resolve_model(load("model=auto", f"model.path={tmp_path}"))
    with pytest.raises(
        UserError, match=r"model\.path=no/such is no folder, and its config\.json could not be downloaded"
    ):
        resolve_model(load("model=auto", "model.path=no/such"))


def test_a_path_is_needed(llmft):
    code, _, err = llmft("model=auto", "data=academic")
    assert code == 2
    assert err.splitlines() == ["llmft: config: 1 fault", "  - model.path: must be set"]
