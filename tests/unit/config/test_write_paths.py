"""What a config may make llmft and Hydra write: below the output folder, and where the command line says so."""

import copy
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, open_dict

from llmft.config.hydra_allowlist import hydra_faults, hydra_write_faults, pinned_folder
from llmft.config.paths import conf_dir
from llmft.config.schema import TrainConfig
from llmft.config.validate import write_faults
from llmft.config.write_paths import Writable, path_faults
from llmft.runs.open import relocate


@pytest.fixture(scope="module")
def base() -> Any:
    """The config of a training with Hydra's own."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("train", ["model=tiny_gpt2", "data.path=sample"], return_hydra_config=True)


def changed(base: Any, values: dict[str, Any]) -> Any:
    """A copy with values of a file."""
    cfg = copy.deepcopy(base)
    OmegaConf.set_readonly(cfg.hydra, False)
    with open_dict(cfg):
        for key, value in values.items():
            OmegaConf.update(cfg, key, value, merge=False, force_add=True)
    return cfg


def of_hydra(base: Any, values: dict[str, Any], *typed: str, multirun: bool = False) -> list[str]:
    """The faults of Hydra's config, with values of a file and overrides of the command line."""
    cfg = changed(base, values)
    return [*hydra_faults(cfg.hydra, typed), *hydra_write_faults(cfg, typed, multirun=multirun)]


LOG = {"class": "logging.FileHandler", "filename": "/elsewhere/x.log"}
HANDLER = "hydra.job_logging.handlers.x"
OWN_LOG = "${hydra.runtime.output_dir}/own.log"


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({HANDLER: LOG}, f"{HANDLER}.filename="),
        ({"hydra.hydra_logging.handlers.x": LOG}, "hydra.hydra_logging.handlers.x.filename="),
        ({"hydra.job_logging.handlers.a": {"b": [[LOG]]}}, "hydra.job_logging.handlers.a.b[0][0].filename="),
        ({HANDLER: LOG | {"filename": "outputs/../x.log"}}, f"{HANDLER}.filename="),
        ({HANDLER: LOG | {"filename": "${hydra.runtime.output_dir}/config.yaml"}}, f"{HANDLER}.filename="),
        ({HANDLER: LOG | {"filename": "${hydra.runtime.output_dir}/../x.log"}}, f"{HANDLER}.filename="),
        ({HANDLER: LOG | {"filename": OWN_LOG, "mode": "w"}}, f"{HANDLER}.mode=w"),
        ({"hydra.job_logging.handlers": "${data}"}, "hydra.job_logging.handlers=${data}: not allowed"),
        ({"hydra.job_logging": "${data}"}, "hydra.job_logging=${data}: not allowed"),
        ({"hydra.hydra_logging.handlers.filename": "${data}"}, "hydra.hydra_logging.handlers.filename="),
        ({"hydra.callbacks.x": "${callbacks.progress}"}, "hydra.callbacks.x=${callbacks.progress}: stands for a whole section"),
        ({"hydra.callbacks.x": "${.y}", "hydra.callbacks.y": {"a": 1}}, "hydra.callbacks.x=${.y}: stands for a whole section"),
        # a text now, and a section when Hydra resolves it
        ({"hydra.callbacks.x": "${data.names.${now:%S}}"}, "hydra.callbacks.x=${data.names.${now:%S}}: could"),
        ({"hydra.callbacks.x": '${oc.select:data.k${now:%S},"}"}'}, "hydra.callbacks.x=${oc.select:data.k${now:%S},"),
        ({"hydra.callbacks.x": "${data.notice}", "data.notice": "${oc.select:data.k${now:%S},text}"}, "hydra.callbacks.x=${data.notice}: could"),
        ({"hydra.callbacks.x": "${data.k.a}", "data.k": "${.${now:%S}}"}, "hydra.callbacks.x=${data.k.a}: could"),
        ({"hydra.callbacks.x": "${data.notice}", "data.notice": "${hydra:mode}"}, "hydra.callbacks.x=${data.notice}: could"),
        ({"hydra.run.dir": "/elsewhere"}, "hydra.run.dir=/elsewhere"),
        ({"hydra.run.dir": "."}, "hydra.run.dir=."),
        ({"output_dir": "outputs/../.."}, "output_dir=outputs/../.."),
        ({"hydra.output_subdir": ".hydra"}, "hydra.output_subdir=.hydra"),
        ({"hydra.job.chdir": True}, "hydra.job.chdir=True"),
        ({"hydra.job.name": "a/../../b"}, "hydra.job.name=a/../../b"),
        ({"hydra.job.name": "${oc.env:HOME}"}, "hydra.job.name=${oc.env:HOME}"),
        ({"hydra.mode": "MULTIRUN"}, "hydra.mode="),
        ({"hydra.sweep.subdir": "../x"}, "hydra.sweep.subdir=../x"),
        ({"hydra.sweep.subdir": "${hydra.job.override_dirname}"}, "hydra.sweep.subdir="),
        ({"hydra.sweeper.params": {"allow_targets": "[os]"}}, "hydra.sweeper.params.allow_targets"),
        ({"hydra.sweeper.params": {"allow_writes": "[/]"}}, "hydra.sweeper.params.allow_writes"),
        ({"hydra.sweeper.params": {"model.trust_remote_code": True}}, "hydra.sweeper.params.model.trust_remote_code"),
        ({"hydra.sweeper.params": {"+hydra.run.dir": "x"}}, "hydra.sweeper.params.+hydra.run.dir"),
        ({"hydra.sweeper.params": {"hydra/job_logging": "default"}}, "hydra.sweeper.params.hydra/job_logging"),
        ({"hydra.sweeper.params": {"a=1 b": "x"}}, "hydra.sweeper.params.a=1 b"),
    ],
)  # fmt: skip
def test_what_hydra_would_write_for_a_file_is_refused(values, key, base):
    faults = of_hydra(base, values)
    assert [fault for fault in faults if fault.startswith(key)], faults


@pytest.mark.parametrize(
    ("key", "value"),
    [("output_dir", "${hydra:runtime.cwd}/../x"), ("hydra.run.dir", "${hydra:runtime.cwd}"), ("output_dir", None)],
)
def test_a_folder_that_hydra_resolves_later_is_refused(key, value, base, monkeypatch):
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)  # as before a job begins
    (fault,) = of_hydra(base, {key: value})
    assert fault.startswith(f"{key}: must be known before a job begins")


def test_a_sweep_writes_below_outputs(base):
    (fault,) = of_hydra(base, {"hydra.sweep.dir": "/elsewhere"}, multirun=True)
    assert fault.startswith("hydra.sweep.dir=/elsewhere")
    *_, fault = of_hydra(base, {"hydra.launcher.submitit_folder": "/elsewhere"}, multirun=True)
    assert fault.startswith("hydra.launcher.submitit_folder=/elsewhere")


def test_what_hydra_may_write(base, tmp_path):
    assert of_hydra(base, {}) == of_hydra(base, {}, multirun=True) == []
    assert of_hydra(base, {HANDLER: LOG | {"filename": OWN_LOG}, "output_dir": "outputs/mine"}) == []
    assert of_hydra(base, {"hydra.sweep.subdir": "job-${hydra.job.num}", "hydra.sweeper.params": {"seed": "1,2"}}) == []
    for text in (
        "${seed}",
        "${.other}",
        "${data.name}",
        "${now:%S}",
        "${data.name}-${now:%S}",
        "${hydra.sweep.dir}/.submitit/%j",
    ):
        assert of_hydra(base, {"hydra.callbacks.x": text, "hydra.callbacks.other": 1}, multirun=True) == [], text
    # below a folder that the command line names, and as the command line itself says
    assert (
        of_hydra(
            base,
            {"output_dir": f"{tmp_path}/a", HANDLER: LOG | {"filename": f"{tmp_path}/x.log"}},
            f"allow_writes=[{tmp_path}]",
        )
        == []
    )
    assert of_hydra(base, {"output_dir": "/typed"}, "output_dir=/typed") == []
    assert of_hydra(base, {"output_dir": "/typed/academic"}, "output_dir=/typed/${data.name}") == []
    assert of_hydra(base, {"hydra.output_subdir": ".hydra"}, "hydra.output_subdir=.hydra") == []
    assert of_hydra(base, {"output_dir": "/elsewhere"}, "output_dir=/typed") != []


@pytest.mark.parametrize(
    ("values", "typed", "folder"),
    [
        ({"output_dir": "outputs/mine"}, [], ["hydra.run.dir=outputs/mine"]),
        ({}, ["output_dir=outputs/typed"], []),
        ({}, ["resume=outputs/run"], []),
        ({"hydra.run.dir": "outputs/mine"}, ["output_dir=outputs/typed"], ["hydra.run.dir=outputs/mine"]),
        ({"hydra.run.dir": "outputs/mine"}, ["hydra.run.dir=outputs/typed"], []),
        # what the typed value stands for may come from a file
        ({"output_dir": "/typed/academic"}, ["output_dir=/typed/${data.name}"], ["hydra.run.dir=/typed/academic"]),
    ],
)
def test_the_folder_that_was_checked_is_the_one_that_hydra_takes(values, typed, folder, base):
    assert pinned_folder(changed(base, values), typed, multirun=False) == folder


def test_a_link_out_of_the_output_folder_is_followed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "link").symlink_to("/elsewhere")
    writable = Writable.by([], "outputs")
    assert not writable.holds("outputs/link/x")
    assert writable.holds("outputs/other/../x")
    assert not writable.holds("outputs/\0")
    assert not writable.holds("~/x")


@pytest.mark.parametrize(
    ("command_line", "value", "allowed"),
    [
        ("data.cache=/c", "/c", True),
        ("data.cache=/c", "/c/other", False),
        ("data={cache: /c}", "/c", True),
        ("data.cache=${oc.env:LLMFT_TEST_FOLDER}/c", "/env/c", True),
        ("data.cache=/c/${data.name}", "/c/academic", True),
        ("data.cache=/c/${data.name}", "/d/academic", False),
        ("data.cache=${data.name}", "/d", False),  # what it stands for may come from a file
        ("data.cache=/${data.name}", "/d", False),
        ("data.cache=${hydra:sweep.dir}", "outputs", True),  # below outputs/ in any case
        ("allow_writes=[/c]", "/c/x", True),
        ("allow_writes=[/c]", "/cc", False),
    ],
)
def test_the_word_of_the_command_line(command_line, value, allowed, monkeypatch):
    monkeypatch.setenv("LLMFT_TEST_FOLDER", "/env")
    plain = {"data": {"cache": value, "sets": {"a": {"cache": None}}}}
    assert (list(path_faults(plain, (), Writable.by([command_line], "outputs"))) == []) is allowed


def test_every_key_that_names_what_a_command_writes():
    outside = {
        "output": "/o",
        "to": "/t",
        "runs": "/r",
        "run": "/u",
        "input": "/i",
        "data": {"sets": {"a": {"cache": "/c"}}},
    }
    writable = Writable.by(["allow_targets=[x]"], "outputs")
    keys = [
        fault.partition("=")[0] for fault in path_faults(outside, ("run", "input", "output", "to", "runs"), writable)
    ]
    assert keys == ["run", "output", "to", "runs", "data.sets.a.cache"]
    judged = outside | {"judge": {"kind": "ollama"}}  # judge.jsonl is written beside the input
    assert "input=/i" in "".join(path_faults(judged, ("input",), writable))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("logger.x", {"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": "/elsewhere"}),
        ("logger.x", {"_target_": "lightning.pytorch.loggers.WandbLogger", "project": "p"}),  # would write into ./wandb
        ("logger.x", {"_target_": "lightning.pytorch.loggers.MLFlowLogger", "save_dir": None}),
        ("logger.x", {"_target_": "lightning.pytorch.loggers.MLFlowLogger", "tracking_uri": "sqlite:////elsewhere/x.db"}),
        ("logger.x", {"_target_": "lightning.pytorch.loggers.MLFlowLogger", "tracking_uri": "file:${output_dir}/%2e%2e/x"}),
        ("callbacks.x", {"_target_": "lightning.pytorch.callbacks.SpikeDetection"}),
        ("callbacks.x", {"_target_": "lightning.pytorch.callbacks.SpikeDetection", "exclude_batches_path": "skip.json"}),
        ("callbacks.x", {"_target_": "lightning.pytorch.callbacks.ModelCheckpoint", "dirpath": "~/x"}),
        ("callbacks.x", {"_target_": "lightning.pytorch.callbacks.ModelCheckpoint", "dirpath": 5}),
        ("callbacks.x", {"_target_": "lightning.pytorch.callbacks.OnExceptionCheckpoint", "dirpath": "${output_dir}", "filename": "../x"}),
        ("callbacks.pruning", {"_target_": "llmft.callbacks.pruning.Pruning", "study": "/elsewhere/study.journal"}),
        ("trainer.profiler", {"_target_": "lightning.pytorch.profilers.PyTorchProfiler", "dirpath": "/elsewhere"}),
        ("trainer.profiler", {"a": [{"_target_": "lightning.pytorch.profilers.SimpleProfiler", "dirpath": "/elsewhere"}]}),
    ],
)  # fmt: skip
def test_an_argument_that_would_write_elsewhere(key, value, base):
    (fault,) = write_faults(_task(changed(base, {key: value})), TrainConfig, [])
    assert fault.startswith(key), fault


def test_arguments_that_write_into_the_run(base, tmp_path):
    logger = {
        "_target_": "lightning.pytorch.loggers.CSVLogger",
        "save_dir": "${output_dir}/csv",
        "name": "a/b",
        "version": 3,
    }
    study = {"_target_": "llmft.callbacks.pruning.Pruning", "study": str(tmp_path / "study.journal")}
    cfg = changed(base, {"output_dir": str(tmp_path / "3"), "logger.x": logger, "callbacks.pruning": study})
    assert write_faults(_task(cfg), TrainConfig, []) == []
    elsewhere = changed(base, {"logger.tensorboard.save_dir": "/scratch/tb"})
    assert write_faults(_task(elsewhere), TrainConfig, ["allow_writes=[/scratch]"]) == []
    assert write_faults(_task(elsewhere), TrainConfig, ["logger.tensorboard.save_dir=/scratch/tb"]) == []


def test_a_stored_config_is_moved_to_where_the_run_is(tmp_path, capsys):
    csv = {"save_dir": "/theirs/run/csv", "tracking_uri": "file:/theirs/run/mlruns", "name": "csv"}
    stored = {
        "output_dir": "/theirs/run",
        "resume": "/theirs/other",
        "data": {"cache": "/theirs/cache"},
        "logger": {"x": csv, "y": None},
    }
    cfg = OmegaConf.create({**stored, "callbacks": {"pruning": {"study": "/theirs/study.journal"}, "none": None}})
    relocate(cfg, tmp_path / "3")
    assert cfg == {
        "output_dir": f"{tmp_path}/3",
        "resume": None,
        "data": {"cache": None},
        "logger": {
            "x": {"save_dir": f"{tmp_path}/3/csv", "tracking_uri": f"file:{tmp_path}/3/mlruns", "name": "csv"},
            "y": None,
        },
        "callbacks": {"pruning": {"study": f"{tmp_path}/study.journal"}, "none": None},
    }
    assert "data.cache=/theirs/cache of the stored config is not used" in capsys.readouterr().err


def _task(cfg: Any) -> Any:
    with open_dict(cfg):
        cfg.pop("hydra", None)
    return cfg
