"""What somebody else's config may not make run, write or read; each was tried against the code before it was refused."""

import json
import os
import re
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from llmft.config.cli_args import check_command_line
from llmft.config.flags import check_flags
from llmft.config.hydra_allowlist import hydra_faults
from llmft.config.redact import redact_config
from llmft.config.schema import TrainConfig
from llmft.config.validate import check
from llmft.runs.resume import resumed
from llmft.utils.errors import UserError

EVIL = {"_target_": "shutil.rmtree", "path": "/nowhere"}


def experiment(folder: Path, **keys: object) -> str:
    """A file of ``--config-dir`` that sets these keys."""
    file = folder / "experiment" / "theirs.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"# @package _global_\n{yaml.safe_dump(keys)}")
    return f"--config-dir={folder}"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+callbacks.x._target_=shutil.rmtree", "callbacks.x._target_=shutil.rmtree: not allowed"),
        # what a module of ours imports, its functions, and what belongs elsewhere
        ("+callbacks.x._target_=llmft.runs.directory.shutil.rmtree", "callbacks.x._target_=llmft.runs.directory.shutil.rmtree: not allowed"),
        ("+callbacks.x._target_=llmft.callbacks.checkpoints.os.system", "cannot be imported"),
        ("+callbacks.x._target_=llmft.runs.checkpoint_io.link", "not allowed; classes here must come from llmft.callbacks."),
        ("optim._target_=llmft.models.backbone.gguf.from_wheel", "not allowed; classes here must come from torch.optim."),
        ("trainer._target_=lightning.pytorch.cli.LightningCLI", "trainer._target_=lightning.pytorch.cli.LightningCLI"),
        ("+callbacks.x=[{_target_:shutil.rmtree}]", "callbacks.x[0]._target_=shutil.rmtree: not allowed"),
        ("+callbacks.x={a:{b:[[{_target_:os.remove}]]}}", "callbacks.x.a.b[0][0]._target_=os.remove: not"),
        ("callbacks.progress._target_=${seed}", "callbacks.progress._target_=${seed}: not allowed"),
        ("data.system=${oc.decode:x}", "data.system=${oc.decode:x}: ${oc.decode:...} is not allowed; use one of now, "),
        ("data.system=${oc.create:x}", "${oc.create:...} is not allowed"),
        ("data.system=${oc.env:HOME}", "only paths and secrets may come from the environment"),
        ("objective=${oc.env:HOME}/loss", "only paths and secrets may come from the environment"),
        ("+foo=1", "foo: no such key."),
        ("+peft.ranks=1", "peft.ranks: no such key."),
        ("+evaluate.rowz=1", "evaluate.rowz: no such key. Did you mean evaluate.rows?"),
        ("+model.trust_remote=true", "no such key. Did you mean model.trust_remote_code?"),
        ("model.trust_remote_code=true", "model.trust_remote_code=true: set in a config file; it runs code"),
        ("data.name=../../x", "data.name=../../x: must be a name of at most 100 bytes without /"),
        (f"model.name={'x' * 300}", "must be a name of at most 100 bytes"),
        ("peft.name=..", "peft.name=..: must be a name"),
        ("logger.tensorboard.save_dir=/tmp/elsewhere", "logger.tensorboard.save_dir=/tmp/elsewhere: is outside of output_"),
        ("logger.tensorboard.version=../../x", "is outside of output_dir"),
        ("logger=mlflow logger.mlflow.tracking_uri=file:///etc/x", "is outside of output_dir"),
        ("+trainer.profiler._target_=lightning.pytorch.profilers.SimpleProfiler +trainer.profiler.dirpath=/etc", "trainer.pr"),
    ],
)  # fmt: skip
def test_a_config_cannot_call_read_or_write_what_it_should_not(override, message, load):
    with pytest.raises(UserError) as error:
        check(load("model=tiny_gpt2", *override.split()), TrainConfig)
    assert message in str(error.value)


def test_what_a_user_may_still_say(load, monkeypatch):
    monkeypatch.setenv("SCRATCH", "/scratch")
    check(
        load("model=tiny_gpt2", "data.path=${oc.env:SCRATCH}/rows.jsonl", "output_dir=${oc.env:SCRATCH}/run"),
        TrainConfig,
    )
    check(load("model=tiny_gpt2", "data.system='\\${oc.decode:x}'"), TrainConfig)  # text, not an interpolation
    check(load("model=tiny_gpt2", "data.system=${oc.decode:x}"), TrainConfig, allow=["oc.decode"])
    check(load("model=tiny_gpt2", "+callbacks.timer._target_=lightning.pytorch.callbacks.Timer"), TrainConfig)


def test_a_name_of_a_resolver_that_is_made_of_others_is_none_of_the_named(load):
    cfg = load("model=tiny_gpt2")
    cfg.data.system = "${${data.name}.env:HOME}"
    with pytest.raises(UserError, match="is not allowed"):
        check(cfg, TrainConfig)


def test_what_a_file_allows_itself_is_no_permission(llmft, tmp_path):
    theirs = experiment(tmp_path / "theirs", allow_targets=["shutil"], callbacks={"x": EVIL})
    code, _, err = llmft("model=tiny_gpt2", "experiment=theirs", theirs)
    assert code == 2
    assert "callbacks.x._target_=shutil.rmtree: not allowed" in err


def test_a_class_that_comes_by_a_resolver_is_no_way_around(llmft, tmp_path):
    theirs = experiment(
        tmp_path / "theirs", data={"system": "${oc.decode:'{a: 1}'}"}, callbacks={"x": "${data.system}"}
    )
    code, _, err = llmft("model=tiny_gpt2", "experiment=theirs", theirs)
    assert code == 2
    assert "${oc.decode:...} is not allowed" in err


TOUCH = {"_target_": "pathlib.Path.touch", "_args_": []}
HYDRA = [
    ({"callbacks": {"x": TOUCH}}, "hydra.callbacks.x._target_=pathlib.Path.touch: not allowed"),
    ({"job_logging": {"root": {"handlers": []}, "formatters": {"x": {"()": "os.mkdir"}}}}, "formatters.x.(): would be called"),
    ({"job_logging": {"handlers": {"x": {"class": "logging.handlers.SocketHandler"}}}}, "class=logging.handlers.SocketHandler"),
    ({"hydra_logging": {"handlers": {"x": {"stream": "ext://os.environ"}}}}, "stream=ext://os.environ: would be imported"),
    ({"hydra_logging": {"handlers": {"x": ["cfg://root"]}}}, "cfg://root: would be imported"),
    ({"launcher": {"_target_": "os.mkdir"}}, "hydra.launcher._target_=os.mkdir: not allowed"),
    ({"sweeper": {"_target_": "os.mkdir"}}, "hydra.sweeper._target_=os.mkdir: not allowed"),
    ({"job": {"env_set": {"LD_PRELOAD": "x.so"}}}, "hydra.job.env_set: set in a config file and would be executed"),
]  # fmt: skip


@pytest.mark.parametrize(("hydra", "message"), HYDRA)
def test_hydras_own_config_calls_nothing(hydra, message, tmp_path):
    theirs = experiment(tmp_path, hydra=hydra)
    with pytest.raises(UserError) as error:
        check_command_line("train", ["model=tiny_gpt2", "experiment=theirs", theirs], multirun=False)
    assert message in str(error.value)


def test_a_launchers_setup_in_a_file_is_not_run():
    node = OmegaConf.create({"launcher": {"setup": ["reboot"]}, "job_logging": {}, "hydra_logging": {}})
    assert "hydra.launcher.setup: set in a config file" in next(hydra_faults(node, []))
    assert not list(hydra_faults(node, ["hydra.launcher.setup=[reboot]"]))


def test_a_sweep_over_their_files_is_checked_job_by_job(tmp_path):
    theirs = experiment(tmp_path, hydra={"callbacks": {"x": TOUCH}})
    with pytest.raises(UserError, match=r"hydra\.callbacks\.x\._target_"):
        check_command_line("train", ["model=tiny_gpt2", "experiment=none,theirs", theirs], multirun=True)


SECTION = {"notice": {"_target_": "os.mkdir", "path": "evil"}}


@pytest.mark.parametrize(
    ("keys", "typed", "message"),
    [
        ({"hydra": {"callbacks": {"x": "${data.notice}"}, "sweeper": {"params": {"data.notice": "a,b"}}}, "data": SECTION}, [],
         "hydra.callbacks.x=${data.notice}: stands for a whole section"),
        ({"hydra": {"callbacks": {"x": "${data.notice}"}}, "data": SECTION}, ["data.notice=a,b"],
         "hydra.callbacks.x=${data.notice}: stands for a whole section"),
        ({"hydra": {"sweep": {"dir": "${data.path}"}, "sweeper": {"params": {"data.path": "outputs/a,outputs/b"}}}, "data": {"path": "/evil"}}, [],
         "hydra.sweep.dir=/evil: set in a config file"),
    ],
)  # fmt: skip
def test_the_config_that_starts_a_sweep_is_checked_too(keys, typed, message, tmp_path):
    """Hydra starts it with what the files say, whatever value a swept key has in every job."""
    theirs = experiment(tmp_path, **keys)
    with pytest.raises(UserError) as error:
        check_command_line("train", ["model=tiny_gpt2", "experiment=theirs", *typed, theirs], multirun=True)
    assert message in str(error.value)


@pytest.mark.parametrize("sweep", [False, True])
def test_a_folder_of_a_file_is_fixed_once_it_has_been_checked(sweep, tmp_path):
    keys = {"output_dir": "outputs/${now:%f}", "hydra": {"sweep": {"dir": "outputs/${now:%f}"}}}
    theirs = experiment(tmp_path, **keys)
    (folder,) = check_command_line("train", ["model=tiny_gpt2", "experiment=theirs", theirs], multirun=sweep)
    assert re.fullmatch(rf"hydra\.{'sweep' if sweep else 'run'}\.dir=outputs/\d+", folder)
    assert check_command_line("train", ["model=tiny_gpt2"], multirun=sweep) == []


@pytest.mark.parametrize("flags", [["--experimental-rerun", "x.pickle"], ["--config-path=x"], ["-cn", "x"]])
def test_flags_that_go_around_are_refused_also_beside_cfg(flags, llmft):
    code, _, err = llmft("--cfg", "job", *flags)
    assert code == 2
    assert err.startswith("llmft: --")
    with pytest.raises(UserError):
        check_flags("train", flags)


@pytest.mark.parametrize("path", ["a\0b", "x" * 5000])
@pytest.mark.parametrize(
    "key",
    [
        "resume",
        *(pytest.param(k, marks=pytest.mark.slow) for k in ("data.path", "output_dir", "model.path", "peft.adapter")),
    ],
)
def test_awkward_paths_are_refused(key, path, llmft):
    code, _, err = llmft("model=tiny_gpt2", "output_dir=run", f"{key}={path}")
    assert code == 2
    assert [line for line in err.splitlines() if line.startswith("llmft: ")], err[-300:]  # behind what the log says
    assert "Traceback" not in err


def test_a_run_of_somebody_else_goes_on_where_it_lies(load, tmp_path):
    cfg = load("model=tiny_gpt2", "output_dir=/somewhere/else")
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(redact_config(cfg))))
    again = resumed(load(f"resume={tmp_path}", f"output_dir={tmp_path}"), [f"resume={tmp_path}"])
    assert again.output_dir == again.logger.tensorboard.save_dir == str(tmp_path)


def test_a_value_of_the_environment_reaches_no_file(load, monkeypatch):
    monkeypatch.setenv("LLMFT_TEST_PLACE", "/a/secret/place")
    kept = redact_config(load("model=tiny_gpt2", "output_dir=${oc.env:LLMFT_TEST_PLACE}/run"))
    assert "/a/secret/place" not in json.dumps(kept)
    assert os.environ["LLMFT_TEST_PLACE"] == "/a/secret/place"
