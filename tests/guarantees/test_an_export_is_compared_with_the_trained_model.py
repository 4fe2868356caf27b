"""Faults planted in an exported folder are caught when its runtime is compared with the trained model, each by its check.

The scale of T5's outputs is the CTranslate2 form's own.
"""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from llmft import UserError, load_run, train
from llmft.export import export
from llmft.runtimes.runtime import NotInstalledError
from tests.integration.conftest import SHORT


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LoRA on a tiny Llama."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    return train(
        ["model=tiny_llama", "data=alpaca", "peft=lora", *SHORT, "generation=beam", f"output_dir={folder}"]
    ).path


def edit(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def wrong_flag(folder: Path) -> None:
    head = load_file(folder / "model.safetensors")
    tied = "lm_head.weight" not in head
    edit(folder / "config.json", tie_word_embeddings=not tied)


def other_template(folder: Path) -> None:
    file = folder / "chat_template.jinja"
    file.write_text(file.read_text().replace("Instruction", "instruction"))


def second_bos(folder: Path) -> None:
    file = folder / "chat_template.jinja"
    file.write_text("{{- bos_token -}}" + file.read_text())


def changed_tensor(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if "v_proj" in name)
    weights[name] *= 1.1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def other_stop(folder: Path) -> None:
    edit(folder / "generation_config.json", eos_token_id=5)


PLANTED = {
    "tied head": wrong_flag,
    "prompt ids": other_template,
    "prompt ids (BOS)": second_bos,
    "logits": changed_tensor,
    "stop token": other_stop,
}


@pytest.mark.parametrize("check", PLANTED)
def test_a_planted_fault_is_caught(check, run, tmp_path, monkeypatch):
    real = export._write

    def write(form, source, folder):
        real(form, source, folder)
        whole = tmp_path / "copy"  # the files are links
        shutil.copytree(folder, whole)
        shutil.rmtree(folder)
        whole.rename(folder)
        PLANTED[check](folder)

    monkeypatch.setattr(export, "_write", write)
    with pytest.raises(UserError) as error:
        load_run(run).export(tmp_path / "out")
    assert check.partition(" (")[0] in str(error.value) or "lack 1 weights" in str(error.value)
    assert "nothing was kept" in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_export_is_kept_on_request_under_another_name(run, tmp_path, monkeypatch):
    real = export._write

    def write(form, source, folder):
        real(form, source, folder)
        if form == "adapter":
            other_stop(folder)

    monkeypatch.setattr(export, "_write", write)
    with pytest.raises(UserError, match=r"form=adapter: stop token: .*; kept: .*merged, .*adapter\.failed") as error:
        load_run(run).export(tmp_path / "out", form=["merged", "adapter"], keep=True)
    assert isinstance(error.value, export.FailedExportError)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"merged", "adapter.failed"}
    passport = json.loads((tmp_path / "out" / "adapter.failed" / "passport.json").read_text())
    assert passport["status"] == "failed"
    assert "**failed**" in (tmp_path / "out" / "adapter.failed" / "README.md").read_text()
    lines = json.loads((run / "run.json").read_text())["exports"]
    assert [(line["form"], line["status"], line["kept"]) for line in lines[-2:]] == [
        ("merged", "passed", True),
        ("adapter", "failed", True),
    ]


def test_without_its_runtime_an_export_is_not_checked_and_never_fine(run, tmp_path, monkeypatch):
    def missing(*_: object, **__: object) -> None:
        raise NotInstalledError('needs another package; pip install "llmft[gguf]"')

    monkeypatch.setattr(export, "open_runtime", missing)
    done = load_run(run).export(tmp_path / "out", form="adapter")
    assert done.forms[0].passport.status == "not checked"
    passport = json.loads((tmp_path / "out" / "passport.json").read_text())
    assert (passport["status"], passport["checks"]) == ("not checked", [])
    card = (tmp_path / "out" / "README.md").read_text()
    assert 'Not checked: needs another package; pip install "llmft' in card
    assert "passed" not in card
    with pytest.raises(UserError, match=r"was not checked \(needs another package.*nothing was kept"):
        load_run(run).export(tmp_path / "strict", form="adapter", require_check=True)
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
