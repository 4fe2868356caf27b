"""JSON Schemas for editors: the files of conf/ are valid, and wrong types, wrong choices and misspelt keys are not."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema_rs import Draft7Validator, meta
from omegaconf import OmegaConf

from llmft.config.json_schema import schemas
from llmft.config.paths import conf_dir
from llmft.config.schema import COMMANDS
from tests.support.docs_scripts import docs_script

SCHEMAS = {file.stem: json.loads(file.read_text()) for file in (conf_dir() / ".schema").glob("*.json")}
FILES = sorted(conf_dir().rglob("*.yaml"))


def schema_of(file: Path) -> Path:
    """The schema that a file names, as an editor finds it."""
    lines = file.read_text().splitlines()
    mark = "# yaml-language-server: $schema="
    name = next(line.removeprefix(mark) for line in lines[:2] if line.startswith(mark))
    return (file.parent / name).resolve()


def faults(name: str, text: str) -> list[str]:
    """Where a YAML text violates a schema."""
    found = Draft7Validator(SCHEMAS[name]).iter_errors(OmegaConf.to_container(OmegaConf.create(text)))
    return [f"{error.instance_path}: {error.message}" for error in found]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(conf_dir()).as_posix())
def test_every_file_of_conf_is_valid_and_names_its_schema(file):
    schema = schema_of(file)
    assert schema.parent == conf_dir() / ".schema"
    assert faults(schema.stem, file.read_text()) == []


@pytest.fixture(scope="module")
def rendered():
    return schemas()


def test_the_schemas_are_valid_themselves(rendered):
    for schema in rendered.values():
        meta.validate(schema)


def test_the_schemas_are_up_to_date(rendered):
    made = docs_script("make_schemas")
    assert {name: schema for name, schema in rendered.items() if "/" not in name} == SCHEMAS, (
        "run: python docs/make_schemas.py"
    )
    assert all(made.with_line(file.read_text(), file, name) == file.read_text() for file, name in made.files())


def test_the_comments_of_conf_are_the_sentences_of_the_schema():
    made = docs_script("make_schemas")
    for file, name in made.files():
        assert made.with_comments(file.read_text(), file, SCHEMAS[name]) == file.read_text()


def test_comments_that_differ_are_replaced_and_reasons_for_a_value_stay(tmp_path, monkeypatch):
    made = docs_script("make_schemas")
    monkeypatch.setattr(made, "CONF", tmp_path)
    (tmp_path / "peft").mkdir()
    base, option = tmp_path / "peft" / "_base.yaml", tmp_path / "peft" / "mine.yaml"
    base.write_text("# Text.\nr: 8  # how large\ncompute_dtype: float32   # ?\nown: 3  # of ours\nalpha: 16\n")
    option.write_text("defaults: [_base]\nr: 64  # for long answers\n")
    assert made.with_comments(base.read_text(), base, SCHEMAS["peft"]) == (
        "# Text.\nr: 8  # rank of the LoRA matrices\ncompute_dtype: float32   # dtype of the matrix products "
        "with nf4 and fp4: auto (by machine), float32, bfloat16 or float16\nown: 3  # of ours\nalpha: 16\n"
    )
    assert made.with_comments(option.read_text(), option, SCHEMAS["peft"]) == option.read_text()


WRONG = {
    "callbacks": ("nan_guard: {zero_steps: three}", "checkpoints: {mode: lowest}", "nan_gard: {zero_steps: 3}"),
    "data": ("batch_size: 1.5", "batching: paked", "bach_size: 4"),
    "experiment": ("data: {limit: many}", "trainer: {precision: bf16}", "data: {bach_size: 4}"),
    "generation": ("num_beams: one", None, "num_beam: 2"),
    "judge": ("timeout: long", "mode: pair", "model: {pth: x}"),
    "logger": ("tensorboard: 3", None, "mlflow: {experiment_nam: x}"),
    "model": ("new_tokens: x", "dtype: float16", "gguf: x"),
    "optim": ("lr: fast", "bits: 16", "weigth_decay: 0.1"),
    "peft": ("r: 8.5", "method: lorra", "rank: 8"),
    "prompt": ("template: [a]", None, "templat: a"),
    "safety": ("blocked: word", None, "block: [word]"),
    "scheduler": ("warmup_steps: some", "name: linaer", "warmup: 3"),
    "trainer": ("devices: 0", "strategy: dpp", "max_epoch: 3"),
}


@pytest.mark.parametrize(("group", "text"), [(g, text) for g, texts in WRONG.items() for text in texts if text])
def test_a_wrong_type_a_wrong_choice_and_a_misspelt_key_fail(group, text):
    assert len(faults(group, text)) == 1


def test_every_group_has_such_faults():
    with_schema = {folder.name for folder in conf_dir().iterdir() if folder.is_dir()} - {"hydra", ".schema", "debug"}
    assert set(WRONG) == with_schema


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("data", "defaults: [_base, academic@sets.academic, _self_]\nname: ???\nbatch_size: ${seed}"),
        ("data", "_target_: mine.Data\n_partial_: true\n_convert_: all\npages: 3"),
        ("judge", 'defaults:\n  - _base\n  - /model@model: gpt2\nmodel: {path: "${model.path}"}'),
        ("callbacks", "mine:\n  _target_: mine.Callback\n  size: 3\nsamples: null"),
        ("logger", "wandb: {group: any argument of wandb.init}"),
        ("trainer", "limit_train_batches: 10"),
        ("generation", "min_new_tokens: 3"),
        ("experiment", "defaults: [override /model: gpt2]\nhydra: {sweeper: {params: {seed: '1,2'}}}\nquestions: 0"),
        ("experiment", "optim: {_target_: mine.Optimizer, momentum: 0.9}"),
    ],
)
def test_what_hydra_reads_and_what_is_the_users_own_is_valid(name, text):
    assert faults(name, text) == []


def test_a_defaults_list_with_a_misspelt_word_fails():
    assert faults("experiment", "defaults: [{overide /model: gpt2}]")
    assert faults("experiment", "defaults: [{override /model: gpt2, /data: academic}]")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_complete_schema_accepts_a_composed_config_and_misses_its_keys(command, rendered, load):
    schema = rendered[f"complete/{command}"]
    config: Any = OmegaConf.to_container(load(command=command), resolve=True)
    assert [str(error) for error in Draft7Validator(schema).iter_errors(config)] == []
    for key in config:
        missing = {name: value for name, value in config.items() if name != key}
        assert not Draft7Validator(schema).is_valid(missing), key


def test_the_command_writes_them(rendered, llmft, tmp_path, monkeypatch):
    monkeypatch.setattr("llmft.commands.schema.schemas", lambda: rendered)
    for _ in range(2):  # the second time they are replaced
        code, out, _ = llmft("schema", "to=mine/.schema")
        assert (code, out) == (0, f"{len(rendered)} JSON Schemas: mine/.schema\n")
    folder = tmp_path / "mine" / ".schema"
    found = {
        file.relative_to(folder).with_suffix("").as_posix(): json.loads(file.read_text())
        for file in folder.rglob("*.json")
    }
    assert found == rendered
    code, _, err = llmft("schema")
    assert code == 2
    assert "pass to=FOLDER" in err


def test_hover_text_and_default_of_a_key():
    key = SCHEMAS["data"]["properties"]["batching"]
    assert key["description"].startswith("Batches of examples")
    assert key["default"] == "rows"
    assert "default" not in SCHEMAS["scheduler"]["properties"]["warmup_steps"]  # differs between options
