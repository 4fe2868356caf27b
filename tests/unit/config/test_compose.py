"""conf/: its groups and commands; wrong overrides are named, all at once."""

import pytest
from omegaconf import DictConfig

from llmft.__main__ import COMMANDS
from llmft.config.compose import composition_faults
from llmft.config.paths import conf_dir
from tests.conftest import composed

GROUPS = sorted(
    folder.name for folder in conf_dir().iterdir() if folder.is_dir() and folder.name not in ("hydra", ".schema")
)
# What the other commands have of these groups.
COMMANDS_OF = {
    "model": ("preview", "answer", "chat", "serve"),
    "prompt": ("preview", "answer", "chat", "serve"),
    "data": ("preview",),
    "generation": ("answer", "evaluate", "chat", "serve"),
    "judge": ("evaluate",),
    "safety": ("serve",),
}


def test_the_commands_have_these_groups(load):
    chosen = {command: load(command=command) for command in COMMANDS if command not in ("train", "estimate", "prove")}
    found = {group: {c for c, cfg in chosen.items() if isinstance(cfg.get(group), DictConfig)} for group in GROUPS}
    found["data"] -= {"evaluate"}  # keys there, no group
    assert {group: commands for group, commands in found.items() if commands} == {
        group: set(commands) for group, commands in COMMANDS_OF.items()
    }


@pytest.mark.parametrize(
    "overrides",
    [
        ("model=tiny_gpt2", "output_dir=run", "+callbacks.x={a:1}", "peft=qlora", "data.split={val:0,test:0.1}"),
        ("~logger", "output_dir=run", "trainer=ddp", "model=tiny_t5", "++callbacks.progress.refresh_rate=0"),
    ],
)
def test_the_tests_own_way_to_compose_is_hydras(overrides, load):
    for _ in range(2):
        assert load(*overrides) == composed(*overrides)


def test_estimate_takes_what_train_takes(load):
    trained, estimated = load(), load(command="estimate")
    assert set(trained) <= set(estimated)
    assert {group: estimated[group] for group in ("trainer", "data", "peft")} == {
        group: trained[group] for group in ("trainer", "data", "peft")
    }


def test_the_groups_are_these():
    expected = (
        "callbacks data debug experiment generation judge logger model optim peft prompt safety scheduler trainer"
    )
    assert expected.split() == GROUPS


def test_every_command_has_a_config():
    assert {f.stem for f in conf_dir().glob("[!_]*.yaml")} == set(COMMANDS)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.learning_rat=1", "optim.learning_rat: no such key. Did you mean optim.lr=1?"),
        ("data.batchsize=4", "data.batchsize: no such key. Did you mean data.batch_size=4?"),
        ("trainer.max_epoch=4", "Did you mean trainer.max_epochs=4?"),
        ("optim.zzz=4", "optim.zzz: no such key. Available: optim.lr, optim.weight_decay, optim.betas, optim.fused"),
        ("model=tiny_gpt", "model=tiny_gpt: no such option. Did you mean model=tiny_gpt2?"),
        ("model=zzz", "model=zzz: no such option. Available: auto, bart_base, "),
        ("scheduler=linar", "Did you mean scheduler=linear?"),
    ],
)
def test_a_wrong_override_is_named_with_the_way_out(override, message):
    faults = composition_faults("train", ["model=tiny_gpt2", override])
    assert len(faults) == 1
    assert message in faults[0]


def test_all_wrong_overrides_are_named():
    faults = composition_faults("train", ["peft=none", "peft.r=3", "sed=1", "model=nope", "data.limit=3"])
    assert [fault.partition(":")[0] for fault in faults] == ["peft.r", "sed", "model=nope"]


def test_right_overrides_have_no_faults():
    assert (
        composition_faults("train", ["model=tiny_t5", "data=alpaca", "data.path=sample", "peft=none", "optim.lr=1e-3"])
        == []
    )
