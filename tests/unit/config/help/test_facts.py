"""What help and completion take from the schema."""

import json
from pathlib import Path

import pytest

from llmft.__main__ import COMMANDS
from llmft.config.help import facts, index
from llmft.config.help.catalog import Catalog, Key
from llmft.config.help.facts import Fact
from llmft.config.paths import conf_dir


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return Catalog([conf_dir()])


def test_a_fact_is_sentence_type_and_choices(catalog: Catalog):
    found = facts.facts(
        catalog, "train", {"data": "academic", "peft": "qlora", "model": "gpt2", "callbacks": "default"}
    )
    assert found["data.invalid"] == Fact(
        "What happens to a row with a missing or invalid field.", "error | drop", ["error", "drop"]
    )
    assert found["data.shuffle"].choices == ["true", "false"]
    assert found["data.shuffle"].values == "true or false"
    assert found["data.batch_size"].values == "a whole number of at least 1"
    assert found["peft.quantise"].choices == ["nf4", "fp4", "int8"]
    assert found["callbacks.unfreezing.unit"].values == "epoch | step | null"
    assert found["model.dtype"].choices == ["auto", "float32", "bfloat16"]
    assert "data.columns.id" not in found


def test_types_in_brackets_unless_the_default_shows_them(catalog: Catalog):
    keys = [Key(name, "x") for name in ("data.shuffle", "data.batch_size", "model.dtype")]
    shuffle, size, dtype = facts.described(catalog, "train", keys, {"data": "academic", "model": "gpt2"})
    assert shuffle.comment == "Shuffle the training examples in every epoch."
    assert size.comment == "Examples per batch and process. [a whole number of at least 1]"
    assert dtype.comment.endswith(" [auto | float32 | bfloat16]")  # its words are long


def test_the_section_of_an_option_is_found_by_its_keys(catalog: Catalog):
    found = facts.facts(catalog, "train", {"data": "mix", "judge": "model", "callbacks": "nan_guard"})
    assert found["data.sets.academic.path"].sentence == found["data.path"].sentence
    assert found["judge.model.dtype"].choices[0] == "auto"
    assert found["callbacks.nan_guard.idle_steps"].values == "a whole number of at least 2"


def test_evaluate_has_a_data_section_of_its_own(catalog: Catalog):
    assert "all of it test data" in facts.facts(catalog, "evaluate", {})["data.path"].sentence


def test_keys_are_nested_with_their_values():
    keys = [Key("a.b", "2e-4"), Key("a.c", "[x, 1]"), Key("d", "..."), Key("e", "null"), Key("f", "${seed}")]
    assert facts.nested(keys) == {"a": {"b": "2e-4", "c": ["x", 1]}, "d": "...", "e": None, "f": "${seed}"}


def test_every_key_has_a_sentence(catalog: Catalog):
    """Except those of loggers and launchers, which are other packages' own."""
    for name in COMMANDS:
        command = catalog.command(name)
        for group in command.groups:
            for option in catalog.groups[group]:
                known = facts.facts(catalog, name, {group: option})
                keys = (
                    [*command.keys, *catalog.keys(group, option)]
                    if group not in ("logger", "experiment", "debug")
                    else []
                )
                assert [key for key in keys if key not in known or not known[key].sentence] == []


def test_the_index_is_built_once_and_again_when_the_schema_changes(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("LLMFT_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "cache" / "completion.json"
    found = index.index(catalog)
    assert found["train"]["data.invalid"] == (
        "What happens to a row with a missing or invalid field",
        ["error", "drop"],
    )
    kept = json.loads(file.read_text())
    kept["keys"] = {"train": {}}
    file.write_text(json.dumps(kept))
    assert index.index(catalog) == {"train": {}}  # as it is in the file
    monkeypatch.setattr(index, "_digest", lambda _: "of another schema")
    assert index.index(catalog)["train"]["data.invalid"][1] == ["error", "drop"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"digest": 1}'])
def test_a_broken_index_is_built_again(content: str, catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LLMFT_CACHE", str(tmp_path))
    (tmp_path / "completion.json").write_text(content)
    assert "train" in index.index(catalog)


def test_without_a_cache_folder_the_index_is_built_each_time(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LLMFT_CACHE", str(tmp_path / "file"))
    assert "train" in index.index(catalog)
