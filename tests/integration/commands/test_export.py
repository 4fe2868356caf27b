"""``export`` and ``restore``: what is written is the trained model, or nothing is; a card that is true; the Hub's API; the API in Python."""

import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from llmft import Halted, Run, UserError, load_run, train
from llmft.export import hub as hub_of
from llmft.export import license, model_card, passport
from llmft.export.forms import merged
from llmft.models.backbone.locate import locate
from tests.conftest import cli
from tests.integration.conftest import SHORT
from tests.support.digests import digest, digests
from tests.support.hub_stub import TOKEN, hub

TRAVEL = {
    "README.md",
    "SHA256SUMS",
    "chat_template.jinja",
    "generation_config.json",
    "passport.json",
    "tokenizer.json",
    "tokenizer_config.json",
}


def files(folder):
    return {file.name for file in folder.iterdir()}


def test_merged_weights_in_shards_with_all_that_belongs_to_them(lora_run, llmft, tmp_path):
    code, out, err = llmft("export", f"run={lora_run}", "to=out", "shard_size=700KB")
    assert code == 0, err
    assert "merged, float32 in transformers 5" in out
    assert max(map(len, out.splitlines()[:9])) <= 80
    shards = {name for name in files(tmp_path / "out") if name.endswith(".safetensors")}
    assert len(shards) > 1
    assert files(tmp_path / "out") == TRAVEL | shards | {"config.json", "model.safetensors.index.json"}
    assert not any("lora" in name for shard in shards for name in load_file(tmp_path / "out" / shard))
    sums = (tmp_path / "out" / "SHA256SUMS").read_text().splitlines()
    assert len(sums) == len(files(tmp_path / "out")) - 1
    for line in sums:
        expected, name = line.split("  ")
        assert digest(tmp_path / "out" / name) == expected
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text())["max_new_tokens"] == 10
    assert all(file.stat().st_mode & 0o777 == 0o644 for file in (tmp_path / "out").iterdir())


def test_the_adapter_alone_and_an_archive_that_comes_back(lora_run, llmft, tmp_path):
    code, out, err = llmft("export", f"run={lora_run}", "to=out", "form=adapter", "zip=true")
    assert code == 0, err
    assert "out.zip" in out
    assert files(tmp_path) == {"out.zip"}
    code, out, err = llmft("restore", "archive=out.zip", "to=back")
    assert code == 0, err
    assert files(tmp_path / "back") == TRAVEL | {"adapter_config.json", "adapter_model.safetensors"}
    kept = digests(lora_run / "model" / "adapter_model.safetensors")
    assert digests(tmp_path / "back" / "adapter_model.safetensors") == kept
    assert (
        json.loads((tmp_path / "back" / "adapter_config.json").read_text())["base_model_name_or_path"] is None
    )  # no path of this machine
    assert not any(
        str(Path.home()) in f.read_text()
        for f in (tmp_path / "back").iterdir()
        if f.suffix in (".md", ".json", ".jinja")
    )
    code, _, err = llmft("restore", "archive=out.zip", "to=back")
    assert (code, "is not empty" in err) == (2, True)
    code, _, err = llmft("restore", "archive=out.zip", "to=more", "restore.max_size=10KB")
    assert (code, "restore.max_size is 10,000" in err) == (2, True)
    assert files(tmp_path) == {"out.zip", "back"}


def test_what_is_not_the_trained_model_is_not_kept(lora_run, llmft, tmp_path, monkeypatch):
    real = merged.write

    def other(model, *rest):
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.data.mul_(1.5)
        real(model, *rest)

    monkeypatch.setattr(merged, "write", other)
    for zipped in ("zip=true", "zip=false"):
        code, _, err = llmft("export", f"run={lora_run}", "to=out", zipped)
        assert code == 2
        assert "(wanted: at most 0.001)" in err
        assert "; nothing was kept" in err
        assert files(tmp_path) == set()


def test_another_prompt_is_noticed(lora_run, tmp_path, monkeypatch):
    real = merged.write

    def other(model, source, folder, *rest):
        real(model, source, folder, *rest)
        (folder / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")

    monkeypatch.setattr(merged, "write", other)
    with pytest.raises(UserError, match="prompt ids: 0 of 5 equal"):
        load_run(lora_run).export(tmp_path / "out")
    assert files(tmp_path) == set()


@pytest.mark.slow
def test_a_logit_that_is_no_number_is_over_any_tolerance(lora_run, tmp_path, monkeypatch):
    monkeypatch.setattr(passport, "largest_difference", lambda *_: float("nan"))
    with pytest.raises(UserError, match="logits: nan"):
        load_run(lora_run).export(tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run=full", "to=out", "form=adapter"], "form=adapter: this run has no adapter"),
        (["run=full"], "export: pass to=FOLDER, hub=owner/name or both"),
        (["to=out"], "export: pass run=RUN"),
        (["run=full", "to=full"], "to=full: exists and is not a folder"),
        (["run=full", "to=no/such/out"], "to=no/such/out: there is no folder"),
        (
            ["run=full", "to=out", "form=zip"],
            "form=zip: must be one of merged, adapter, ctranslate2, gguf, onnx, or a list of them",
        ),
        (["run=full", "to=out", "shard_size=4"], "shard_size=4: must be a size such as 500MB or 4GB"),
        (["run=full", "hub=a"], "hub=a: must be owner/name"),
        (["run=full", "hub=a/../b"], "hub=a/../b: must be owner/name"),
        (["run=full", "hub=a/b"], "in the environment variable HF_TOKEN (only there)"),
        (["run=full", "to=out", "tolerance=-1"], "tolerance=-1: must be"),
    ],
)
def test_export_says_what_it_needs(arguments, message, full_run, llmft, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    (tmp_path / "full").symlink_to(full_run)
    code, _, err = llmft("export", *arguments)
    assert code == 2
    assert message in err
    assert files(tmp_path) == {"full"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["to=x"], "restore: pass archive=FILE and to=FOLDER"),
        (["archive=nowhere.zip", "to=x"], "archive=nowhere.zip: no such file"),
        (["archive=notes.zip", "to=x"], "archive=notes.zip: is not a valid zip archive"),
        (["archive=notes.zip", "to=notes.zip"], "to=notes.zip: exists and is not a folder"),
        (["archive=notes.zip", "to=x", "restore.max_files=0"], "restore.max_files=0: must be"),
    ],
)
def test_restore_says_what_it_needs(arguments, message, llmft, tmp_path):
    (tmp_path / "notes.zip").write_text("my notes")
    code, _, err = llmft("restore", *arguments)
    assert code == 2
    assert message in err
    assert files(tmp_path) == {"notes.zip"}


def test_the_card_says_what_is_known(lora_run):
    run = load_run(lora_run)
    data = {**run.record["data"], "source": "/home/somebody/private/rows.jsonl"}
    record = {**run.record, "data": data, "verdict": None}  # as of an earlier version: the card makes one of the scores
    scores = {"rows": 20, "of": 20, "split": "test",
              "scores": {"chrf": {"base": 10.0, "tuned": 20.0, "tuned_interval": [15.0, 25.0], "difference": 10.0, "difference_interval": [4.0, 16.0], "verdict": "better"}}}  # fmt: skip
    config = run.config.replaced({"model.name": "flan_t5_small", "model.path": "google/flan-t5-small"})
    text = model_card.card(config, record, scores, "merged", checked=["Checked."])
    for said in ('license: "apache-2.0"', 'base_model: "google/flan-t5-small"', "| source | rows.jsonl |", run.record["data"]["sha256"], "| rows kept | 24 |",
                 "| chrf | 10.00 | 20.00 (15.00 to 25.00) | +10.00 (+4.000 to +16.00) | better |", "| peft.r | 16 |", "Checked.",
                 "Better than its base on 20 test rows: chrf 20.00 against 10.00"):  # fmt: skip
        assert said in text
    assert "somebody" not in text
    unknown = model_card.card(run.config, {}, None, "adapter")
    assert "Its answers have not been evaluated." in unknown


def test_the_licence_of_a_base(tmp_path, load_config):
    assert license.base_model_license(load_config("model=gemma_2b_it").model) == "gemma"
    assert license.base_model_license(load_config("model=tiny_t5").model) is None
    (tmp_path / "README.md").write_text("---\nlanguage: en\nlicense: 'mit'\n---\n# x\n")
    assert license.base_model_license(load_config("model=gpt2", f"model.path={tmp_path}").model) == "mit"
    assert license.base_model_license(load_config("model=gpt2", "model.path=somebody/else").model) is None
    (tmp_path / "README.md").write_text("license: mit")
    assert license.base_model_license(load_config("model=gpt2", f"model.path={tmp_path}").model) is None


@pytest.fixture
def stub(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with hub() as running:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", running.url)
        yield running


def test_pushing_to_the_hub(stub, tmp_path, monkeypatch):
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n# x\n")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    assert hub_of.push(tmp_path, "me/model", private=True) == f"{stub.url}/me/model/commit/abc"
    assert [(made["name"], made["organization"], made["visibility"]) for made in stub.created] == [
        ("model", "me", "private")
    ]
    assert stub.files == {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert stub.commits == ["Upload by llmft"]
    monkeypatch.setenv("HF_TOKEN", "hf_wrongToken")
    with pytest.raises(
        UserError, match=r"hub=me/model: upload to the Hub at http://127.0.0.1:.* failed: .*401"
    ) as error:
        hub_of.push(tmp_path, "me/model", private=True)
    assert "hf_wrongToken" not in str(error.value)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        hub_of.check_access("me/model")


@pytest.mark.slow
def test_a_command_pushes_what_it_checked(lora_run, tmp_path):
    environment = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    with hub() as stub:

        def push(token):
            command = [
                sys.executable,
                "-m",
                "llmft",
                "export",
                f"run={lora_run}",
                "hub=me/model",
                "form=adapter",
                "to=out",
            ]
            tokens = {"HF_TOKEN": token, "HF_ENDPOINT": stub.url}
            return subprocess.run(
                command, cwd=tmp_path, env=environment | tokens, capture_output=True, text=True, check=False
            )

        wrong = push("hf_wrongToken")
        assert wrong.returncode == 2
        assert "upload to the Hub" in wrong.stderr
        assert "hf_wrongToken" not in wrong.stdout + wrong.stderr
        assert files(tmp_path) == set()
        done = push(TOKEN)
    assert done.returncode == 0, done.stderr
    assert f"{stub.url}/me/model/commit/abc" in done.stdout
    assert {name: digest(data) for name, data in stub.files.items()} == digests(*(tmp_path / "out").iterdir())
    assert TOKEN not in done.stdout + done.stderr
    assert not any(TOKEN.encode() in data for data in stub.files.values())


def test_a_run_in_python(lora_run):
    run = load_run(lora_run)
    assert (run.path, run.record["status"], run.config.peft.name, run.scores) == (lora_run, "finished", "lora", None)
    one, two = run.answers(["What is a llama?", "Why?"])
    assert run.answer("What is a llama?") == one.text
    assert run.answer("Why?", max_new_tokens=2) == two.text[: len(run.answer("Why?", max_new_tokens=2))]
    assert run.answer("What is a llama?", base=True) != one.text
    assert run.answer("What is a llama?") == one.text  # the adapter is on again
    for setting in ("max_new_tokens", "foo"):
        wrong: Any = {setting: 0}
        with pytest.raises(UserError, match="generation"):
            run.answer("Why?", **wrong)
    for wrong in ("text", ["Hi", " "]):
        with pytest.raises(UserError, match="questions"):
            run.answers(wrong)


def test_faults_in_python_are_exceptions(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"optim.learning_rate: no such key. Did you mean optim.lr=1\?"):
        train(["model=tiny_t5", "optim.learning_rate=1"])
    with pytest.raises(UserError, match=r"optim.lr=-1: must be a number above 0"):
        train(["model=tiny_t5", "optim.lr=-1", "output_dir=a"])
    with pytest.raises(UserError, match="flags are for the command line"):
        train(["-m", "model=tiny_t5"])
    with pytest.raises(UserError, match="must be a list"):
        train("model=tiny_t5")
    with pytest.raises(UserError, match="no run directory"):
        load_run(tmp_path)


@pytest.mark.slow
def test_a_halt_in_python_is_an_exception_and_a_command_line_does_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Halted, match="halted at step"):
        train(["model=tiny_gpt2", *SHORT, "peft=none", "optim.lr=1e30", "scheduler=constant", "output_dir=a"])
    run = train(["model=tiny_gpt2", "peft=lora", *SHORT, "output_dir=b"])
    assert cli("model=tiny_gpt2", "peft=lora", *SHORT, "output_dir=c", cwd=tmp_path).returncode == 0
    first, second = (load_file(tmp_path / name / "model" / "adapter_model.safetensors") for name in "bc")
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert run.record["command"][:3] == ["llmft", "train", "model=tiny_gpt2"]


def test_the_defaults_of_export_are_those_of_its_config(load_config):
    signature = inspect.signature(Run.export).parameters
    cfg = load_config(command="export").node()
    assert {name: p.default for name, p in signature.items() if p.kind is p.KEYWORD_ONLY} == {
        name: cfg[name] for name in signature if name not in ("self", "to")
    }


def test_importing_llmft_imports_nothing_heavy():
    code = "import sys, llmft; llmft.__version__; sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'hydra', 'omegaconf')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("form", ["merged", "adapter"])
def test_the_code_of_a_card_runs_as_it_stands(form, lora_run, tmp_path, monkeypatch, capsys):
    load_run(lora_run).export(tmp_path / "out", form=form, name="Support assistant", language="en")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "# Support assistant\n" in card
    assert 'language: "en"' in card
    if form == "adapter":
        assert '"tiny-gpt2")  # a local folder of the training; put its path here' in card
        (tmp_path / "out" / "tiny-gpt2").symlink_to(locate(load_run(lora_run).config.model))
    monkeypatch.chdir(tmp_path / "out")
    capsys.readouterr()
    exec(card.split("```python\n")[1].split("```")[0], {})
    assert capsys.readouterr().out == load_run(lora_run).answer("What is a llama?") + "\n"


def test_a_base_in_bfloat16_stays_so_and_new_tokens_travel_in_an_adapter(tmp_path, load_config):
    base = locate(load_config("model=tiny_gpt2").model)
    AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).save_pretrained(tmp_path / "base")
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "base")
    words = (
        "model=tiny_gpt2",
        f"model.path={tmp_path / 'base'}",
        "model.new_tokens=[ROAD,CITY]",
        "data=alpaca",
        "peft=lora",
    )
    run = train([*words, *SHORT, f"output_dir={tmp_path / 'run'}"])
    done = run.export(tmp_path / "out", form=["merged", "adapter"])
    assert [(one.passport.dtype, one.passport.status) for one in done.forms] == [("bfloat16", "passed")] * 2
    weights = load_file(tmp_path / "out" / "merged" / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
    wide = run.export(tmp_path / "wide", dtype="float32").forms[0].passport
    assert (wide.dtype, wide.status) == ("float32", "passed")
    assert wide.difference is not None
    assert wide.difference < 1e-4
    shutil.rmtree(tmp_path / "base")
    with pytest.raises(UserError, match="dtype=auto: is the dtype of the base model, which cannot be read"):
        run.export(tmp_path / "more")
