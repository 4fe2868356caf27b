"""``model.path``: a folder needs no ``model.gguf_file=null``; a run and an adapter are named with the keys that take them."""

import json
import logging

import pytest
from safetensors.torch import save_file

from llmft.models.backbone.locate import gguf_file_of, locate, locate_cached
from llmft.utils.errors import UserError


@pytest.fixture
def located(load, caplog):
    caplog.set_level(logging.INFO, "llmft")
    return lambda *overrides: locate(load(*overrides).model)


def test_the_safetensors_of_a_folder_are_taken_with_a_default_gguf_file(located, load, tmp_path, caplog):
    (tmp_path / "config.json").write_text("{}")
    save_file({}, tmp_path / "model.safetensors")
    assert located("model=smollm2_135m", f"model.path={tmp_path}") == str(tmp_path)
    file = "model.gguf_file=SmolLM2-135M-Instruct.Q4_1.gguf belongs to the default path"
    assert caplog.messages == [f"model.path={tmp_path}: its safetensors are loaded ({file})"]
    assert locate_cached(load("model=smollm2_135m", f"model.path={tmp_path}").model) == str(tmp_path)
    assert located("model=smollm2_135m", "model.path=owner/model") == "owner/model"


def test_a_gguf_file_that_is_named_is_needed(located, load, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"model.gguf_file=x.gguf: is not in .* \(there: no .gguf file\)"):
        located("model=smollm2_135m", f"model.path={tmp_path}", "model.gguf_file=x.gguf")
    (tmp_path / "x.gguf").touch()
    overrides = ("model=smollm2_135m", f"model.path={tmp_path}", "model.gguf_file=x.gguf")
    assert gguf_file_of(load(*overrides).model) == "x.gguf"
    assert str(gguf_file_of(load("model=smollm2_135m").model)).endswith("Q4_1.gguf")


@pytest.mark.parametrize("model", ["smollm2_135m", "tiny_gpt2"])
def test_an_adapter_is_no_model(model, located, tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "owner/base"}))
    with pytest.raises(UserError) as caught:
        located(f"model={model}", f"model.path={tmp_path}")
    assert str(caught.value) == (
        f"model.path={tmp_path}: is an adapter, no complete model; pass peft.adapter={tmp_path} with the model it was trained on "
        "(owner/base) to train it further"
    )


def test_a_run_is_no_model(located, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(UserError) as caught:
        located("model=tiny_gpt2", f"model.path={tmp_path}")
    assert str(caught.value) == (
        f"model.path={tmp_path}: is a run; its model is model.path={tmp_path}/model, and run= answers with it"
    )
    (tmp_path / "model" / "adapter_config.json").write_text("{}")
    for path in (tmp_path, tmp_path / "model"):
        with pytest.raises(UserError) as caught:
            located("model=tiny_gpt2", f"model.path={path}")
        assert str(caught.value) == (
            f"model.path={path}: is an adapter, no complete model; pass peft.adapter={path} with the model it was trained on "
            f"to train it further, or run={tmp_path} to answer with it"
        )
