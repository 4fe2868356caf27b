"""conf/ read without Hydra: the same keys and values as Hydra composes."""

from collections.abc import Callable
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from llmft.__main__ import COMMANDS
from llmft.config.help.catalog import HIDDEN, Catalog, Default, Key, parse
from llmft.config.paths import conf_dir

TEXT = """\
# @package _global_
# Text on "it",
# in two lines.
defaults:
  - _base
  - /model@model: tiny   # the model
  - override /data: mix
  - _self_
a: 1            # one
ä: "x # y"      # a string
b: {c: null, d: [1, 2]}  # both
text: |-
  a: 2  # not a key
names:          # a list
  - x
_target_: some.where
deep:
  er: true
empty:
"""


def test_comments_defaults_and_keys_of_a_file():
    file = parse(TEXT)
    assert (file.comment, file.is_global) == ('Text on "it", in two lines.', True)
    assert file.defaults == [
        Default("", "_base"),
        Default("model", "tiny", "model", "the model"),
        Default("", "_self_"),
    ]
    assert file.overrides == [Default("data", "mix")]
    assert list(file.keys.values()) == [
        Key("a", "1", "one"),
        Key("ä", '"x # y"', "a string"),
        Key("b.c", "null", "both"),
        Key("b.d", "[1, 2]", ""),
        Key("text", "...", ""),
        Key("names", "...", "a list"),
        Key("_target_", "some.where", ""),
        Key("deep.er", "true", ""),
        Key("empty", "null", ""),
    ]


def test_templates_are_no_options():
    groups = Catalog([conf_dir()]).groups
    assert groups["generation"] == ["beam", "greedy", "sample"]
    assert groups["hydra/sweeper"] == ["optuna"]
    assert not [option for options in groups.values() for option in options if option.startswith("_")]


def test_an_option_has_the_keys_of_what_it_builds_on(tmp_path):
    files = {
        "group/_base.yaml": "a: 1  # of the base\nb: 1",
        "group/child.yaml": "defaults: [_base]\nb: 2\nc: {d: 3}",
        "group/holds.yaml": "defaults:\n  - child@inner.one\n  - /other@two: x\n  - _self_\ninner: {one: {a: 5}}",
        "group/above.yaml": "defaults:\n  - _self_\n  - _base\nb: 2",
        "other/x.yaml": "e: 4",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    catalog = Catalog([tmp_path])

    def values(option: str) -> dict[str, str]:
        return {name: key.default for name, key in catalog.keys("group", option).items()}

    assert catalog.groups == {"group": ["above", "child", "holds"], "other": ["x"]}
    assert values("child") == {"group.a": "1", "group.b": "2", "group.c.d": "3"}
    assert catalog.keys("group", "child")["group.a"].comment == "of the base"
    assert values("holds") == {
        "group.inner.one.a": "5",
        "group.inner.one.b": "2",
        "group.inner.one.c.d": "3",
        "group.two.e": "4",
    }
    assert values("above")["group.b"] == "1"  # the base comes after the file's own keys
    assert "hydra.launcher.n_jobs" in Catalog([conf_dir()]).keys("hydra/launcher", "joblib")


def flat(node: Any, above: str = "") -> dict[str, Any]:
    """The leaves of a config, as dotted names."""
    if not isinstance(node, dict) or not node:
        return {above: node}
    children = [flat(child, f"{above}.{name}" if above else name) for name, child in node.items() if name not in HIDDEN]
    return {name: value for child in children for name, value in child.items()}


@pytest.mark.parametrize("command", ["train", "serve", "evaluate"])
def test_keys_and_defaults_are_those_that_hydra_composes(command: str, load: Callable[..., Any]):
    """Each key once, and with its value, for the default option of each group."""
    catalog = Catalog([conf_dir()])
    info = catalog.command(command)
    ours = dict(info.keys)
    for group, default in info.groups.items():
        ours |= catalog.keys(group, default.option)
    cfg = flat(OmegaConf.to_container(load(command=command), resolve=False))
    cfg = {name: value for name, value in cfg.items() if value != {} or name in ours}
    assert {name for name in ours if ours[name].default != "{}"} <= set(cfg)
    assert set(cfg) <= set(ours) | set(info.groups)
    differ = {
        k for k, v in cfg.items() if k in ours and ours[k].default != "..." and yaml.safe_load(ours[k].default) != v
    }
    assert {
        k for k in differ if float(yaml.safe_load(ours[k].default)) != cfg[k]
    } == set()  # YAML 1.1 reads 2e-4 as a string


def test_every_command_and_group_has_a_sentence():
    catalog = Catalog([conf_dir()])
    assert [
        name for name in COMMANDS if not catalog.command(name).sentence or "llmft" in catalog.command(name).usage
    ] == []
    groups = [group for name in COMMANDS for group in catalog.command(name).groups]
    assert [group for group in groups if not catalog.group_sentence(group)] == []


def test_a_users_folder_adds_options(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("# My model.\ndefaults: [_causal]\nname: mine\n")
    catalog = Catalog([conf_dir(), tmp_path])
    assert "mine" in catalog.groups["model"]
    assert catalog.keys("model", "mine")["model.family"].default == "causal"
