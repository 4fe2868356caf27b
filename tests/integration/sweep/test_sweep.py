"""A multirun: every job in its folder, a table beside them, and one failing job does not end it."""

import csv
import json

import pytest
import torch
from omegaconf import OmegaConf

from llmft.config.cli_args import plugin_faults
from llmft.config.paths import conf_dir
from llmft.sweep.precheck import check_sweep
from llmft.sweep.results import JobStatus, previous_status
from llmft.utils.errors import UserError
from tests.conftest import cli

FAST = (
    "data.limit=20",
    "trainer.max_steps=1",
    "questions=0",
    "evaluate.rows=0",
    "report.write=false",
    "callbacks.samples.number=0",
    "baseline=false",
    "logger=none",
)


def test_jobs_and_table(llmft, tmp_path):
    code, _, err = llmft(
        "-m", "model=tiny_t5,tiny_gpt2", "data=alpaca", "data.path=sample", "peft=none,lora", "output_dir=all", *FAST,
        "trainer.accumulate_grad_batches=2", "data.batch_size=4",
    )  # fmt: skip
    assert code == 0, err
    rows = list(csv.DictReader((tmp_path / "all" / "sweep.csv").open()))
    assert [(row["run"], row["model"], row["peft"], row["status"]) for row in rows] == [
        ("0", "tiny_t5", "none", "finished"),
        ("1", "tiny_t5", "lora", "finished"),
        ("2", "tiny_gpt2", "none", "finished"),
        ("3", "tiny_gpt2", "lora", "finished"),
    ]
    for row in rows:
        record = json.loads((tmp_path / "all" / row["run"] / "run.json").read_text())
        assert float(row["objective"]) == record["objective"] == record["metrics"]["after"]["val/loss"]
        assert (tmp_path / "all" / row["run"] / "model" / "README.md").exists()
        steps = [line["step"] for line in csv.DictReader((tmp_path / "all" / row["run"] / "metrics.csv").open())]
        assert steps == ["1"]  # none for the first window before its step
    ranked = list(csv.DictReader((tmp_path / "all" / "leaderboard.csv").open()))
    assert sorted((row["model"], row["peft"]) for row in ranked) == sorted((row["model"], row["peft"]) for row in rows)
    values = [float(row["val/loss"]) for row in ranked]
    assert values == sorted(values)
    assert (tmp_path / "all" / "leaderboard.html").is_file()
    table = (tmp_path / "all" / "sweep.md").read_text().splitlines()
    assert len(table) == 6
    assert table[0].startswith("| run | model | data | peft | lr | seed | status | objective |")
    assert set(table[1]) == set("| -")
    values = [float(line.split(" | ")[7]) for line in table[2:]]
    assert values == pytest.approx([float(row["objective"]) for row in rows], rel=1e-3)
    assert set((tmp_path / "all").iterdir()) >= {tmp_path / "all" / str(n) for n in range(4)}


def test_a_failing_job_does_not_end_the_sweep(llmft, tmp_path):
    code, _, err = llmft(
        "-m", "model=tiny_gpt2", "data=alpaca", "data.path=no.json,sample", "optim.lr=-1,1e-4", "output_dir=all", *FAST
    )
    assert code == 2
    assert "optim.lr=-1: must be a number above 0 that float32 can hold" in err
    rows = list(csv.DictReader((tmp_path / "all" / "sweep.csv").open()))
    rate = "config: 1 fault\n  - optim.lr=-1: must be a number above 0 that float32 can hold"
    missing = f"data.path=no.json: no such file (looked in {tmp_path}); or data.path=sample for the shipped rows"
    assert [(row["run"], row["status"], row["reason"]) for row in rows] == [
        ("0", "failed", rate),
        ("1", "failed", missing),
        ("2", "failed", rate),
        ("3", "finished", ""),
    ]


@pytest.mark.slow
def test_a_crash_in_one_job_does_not_end_the_sweep_either(llmft, tmp_path, monkeypatch):
    from llmft.models.backbone import load

    real = load.load_model

    def crash(place, *arguments):
        if "tiny-t5" in place:
            raise RuntimeError("out of luck")
        return real(place, *arguments)

    monkeypatch.setattr(load, "load_model", crash)
    code, _, err = llmft(
        "-m",
        "model=tiny_t5,tiny_gpt2",
        "data=alpaca",
        "data.path=sample",
        "data.split.val=0.1,0.2",
        "output_dir=all",
        *FAST,
    )
    assert code == 1
    assert "out of luck" in err
    rows = list(csv.DictReader((tmp_path / "all" / "sweep.csv").open()))
    assert [(row["status"], row["data.split.val"]) for row in rows] == [
        ("failed", "0.1"),
        ("failed", "0.2"),
        ("finished", "0.1"),
        ("finished", "0.2"),
    ]


def test_a_sweep_over_a_wrong_option_does_not_start(llmft, tmp_path):
    code, _, err = llmft("-m", "model=tiny_gpt2,tiny_gpt3", "output_dir=all")
    assert code == 2
    assert "model=tiny_gpt3: no such option. Did you mean model=tiny_gpt2?" in err
    assert not (tmp_path / "all").exists()


@pytest.mark.parametrize(
    ("arguments", "faults"),
    [
        (["seed=1,2", "data.batch_size=0"], ["data.batch_size=0: must be a whole number of at least 1"]),
        (["optim.lr=-1,-2"], [f"optim.lr=-{n}: must be a number above 0 that float32 can hold" for n in (1, 2)]),
        (["seed=1,2", "data.path=no.csv"], ["data.path=no.csv: no such file (looked in {here}); or data.path=sample for the shipped rows"]),
        (["seed=1,2", "peft.targets=[nowhere]"], ["peft.targets: nowhere match no layer of this model; it has c_attn, c_fc, c_proj"]),
        (["experiment=compare_families", "data.batch_size=0"], ["data.batch_size=0: must be a whole number of at least 1"]),
    ],
)  # fmt: skip
def test_what_no_job_could_run_with_is_said_once_and_leaves_nothing(arguments, faults, llmft, tmp_path):
    code, out, err = llmft("-m", "model=tiny_gpt2", *arguments, "output_dir=all")
    lines = "".join(f"  - {fault.format(here=tmp_path)}\n" for fault in faults)
    count = f"{len(faults)} fault{'s' if len(faults) > 1 else ''}"
    assert (code, out, err) == (2, "", f"llmft: no job of this sweep can run: {count}\n{lines}")
    assert list(tmp_path.iterdir()) == []


def test_a_fault_of_some_jobs_is_no_fault_of_the_sweep():
    check_sweep("train", ["model=tiny_gpt2", "optim.lr=-1,1e-3"])
    check_sweep("train", ["model=tiny_gpt2", "optim.lr=-1,1e-3", "data.batch_size=0,4"])  # 1e-3 with 4 can run


def test_the_gpus_of_this_machine_are_not_those_of_a_cluster(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    sweep = ["model=tiny_gpt2", "trainer=gpu", "seed=1,2"]
    check_sweep("train", [*sweep, "hydra/launcher=submitit_slurm"])
    with pytest.raises(UserError, match=r"trainer\.accelerator=gpu"):
        check_sweep("train", [*sweep, "hydra/launcher=submitit_local"])


def test_a_corrected_sweep_runs_what_had_failed(tmp_path):
    def record(status, *overrides):
        (tmp_path / "run.json").write_text(json.dumps({"status": status, "overrides": overrides}))

    record("failed", "optim.lr=-1", "seed=1")
    assert previous_status(tmp_path, ["seed=1"]) == JobStatus(why="had failed with other settings (optim.lr=-1)")
    assert previous_status(tmp_path, ["optim.lr=-1", "seed=1"]) == JobStatus(why="was failed before")
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(
        UserError, match=r"holds a failed job of another sweep \(optim.lr=-1\); choose another output_dir"
    ):
        previous_status(tmp_path, ["seed=1"])
    record("finished", "seed=1")
    with pytest.raises(UserError, match=r"holds a finished job of another sweep \(without optim.lr\); choose another"):
        previous_status(tmp_path, ["optim.lr=1", "seed=1"])


def rows_of(folder):
    return list(csv.DictReader((folder / "sweep.csv").open()))


def test_the_same_line_again_skips_and_resumes(llmft, tmp_path, monkeypatch):
    """Job 0 finishes, job 1 is interrupted after its first checkpoint, job 2 fails; then each goes on as it should."""
    from llmft.commands import train

    line = ("-m", "model=tiny_gpt2", "data=alpaca", "data.path=sample", "seed=1,2,3", "output_dir=all", *FAST,
            "trainer.max_steps=4", "callbacks.checkpoints.every_n_steps=2")  # fmt: skip
    real, started = train.train, []

    def tampered(cfg, run):
        started.append((cfg.seed, cfg.resume is not None))
        if cfg.seed == 3 and len(started) == 3:
            raise RuntimeError("out of luck")
        return real(cfg, run)

    monkeypatch.setattr(train, "train", tampered)
    code, _, err = llmft(*line)
    assert code == 1, err
    assert [row["status"] for row in rows_of(tmp_path / "all")] == ["finished", "finished", "failed"]
    record = json.loads((tmp_path / "all" / "1" / "run.json").read_text())
    straight = {name: record[name] for name in ("objective",)}
    (tmp_path / "all" / "1" / "run.json").write_text(json.dumps(record | {"status": "running", "objective": None}))
    started.clear()
    code, out, err = llmft(*line)
    assert code == 0, err
    assert started == [(2, True), (3, False)]
    assert "job 0: was finished before, nothing to do" in err
    assert "job 1: was killed before, resuming" in err
    assert [row["status"] for row in rows_of(tmp_path / "all")] == ["finished"] * 3
    assert json.loads((tmp_path / "all" / "1" / "run.json").read_text())["objective"] == straight["objective"]
    assert "3 jobs in all" in out
    started.clear()
    code, _, err = llmft(*line[:4], "seed=1,2,4", *line[5:])
    assert code == 2
    assert not started
    assert "all/2: holds a finished job of another sweep (seed=3); choose another output_dir" in err
    assert "not run: 1 of 3 jobs; what the table has of them is from an earlier sweep" in err
    kept = "kept: 2 of 3 jobs, done before; a sweep that is repeated runs what is missing. To run a job again, "
    assert f"{kept}delete its folder in all/; to run all of them, choose another folder: output_dir=all-2" in err


def test_a_search_proposes_prunes_and_goes_on(llmft, tmp_path):
    line = ("-m", "hydra/sweeper=optuna", "model=tiny_gpt2", "data=alpaca", "data.path=sample", "peft=none",
            "optim.lr=tag(log, interval(1e-6, 1e-2))", "scheduler=constant,linear", "output_dir=all", *FAST,
            "trainer.max_steps=3", "data.batch_size=6", "trainer.val_check_interval=1",
            "callbacks.pruning.warmup=0", "callbacks.pruning.startup=1", "hydra.sweeper.sampler=random")  # fmt: skip
    code, _, err = llmft(*line, "hydra.sweeper.n_trials=3")
    assert code == 0, err
    rows = rows_of(tmp_path / "all")
    assert [row["run"] for row in rows] == ["0", "1", "2"]
    assert len({row["lr"] for row in rows}) == 3
    assert all(1e-6 <= float(row["lr"]) <= 1e-2 for row in rows)
    assert {row["status"] for row in rows} == {"finished", "pruned"}, rows  # the seed makes it so
    pruned = next(row for row in rows if row["status"] == "pruned")
    finished = [row for row in rows if row["status"] == "finished"]
    assert "worse than other trials of the sweep" in pruned["reason"]
    assert float(pruned["objective"]) > min(float(row["objective"]) for row in finished)
    assert "callbacks.pruning.trial" not in rows[0]
    code, _, err = llmft(*line, "hydra.sweeper.n_trials=4")
    assert code == 0, err
    after = rows_of(tmp_path / "all")
    assert after[:3] == rows
    assert len(after) == 4
    assert after[3]["lr"] not in {row["lr"] for row in rows}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_launchers_run_the_jobs_elsewhere(launcher, tmp_path):
    line = ("-m", f"hydra/launcher={launcher}", "model=tiny_gpt2", "data=alpaca", "data.path=sample",
            "optim.lr=1e-3,-1", "output_dir=all", *FAST)  # fmt: skip
    done = cli(*line, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert [row["status"] for row in rows_of(tmp_path / "all")] == ["finished", "failed"]
    assert "Warning" not in done.stderr
    again = cli(*line, cwd=tmp_path)
    assert again.returncode == 2
    assert json.loads((tmp_path / "all" / "0" / "run.json").read_text())["status"] == "finished"
    assert "resumed" not in json.loads((tmp_path / "all" / "0" / "run.json").read_text())


@pytest.mark.slow
def test_a_killed_job_does_not_end_the_sweep(tmp_path):
    """As the kernel kills what takes too much memory: by a callback that kills its process."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "killer.py").write_text(
        "import os, signal\nimport lightning.pytorch as pl\n\n\nclass Killer(pl.Callback):\n"
        "    def __init__(self, now: bool) -> None:\n        self.now = now\n\n"
        "    def on_train_start(self, trainer, pl_module):\n"
        "        if self.now:\n            os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    (tmp_path / "own" / "callbacks").mkdir(parents=True)
    (tmp_path / "own" / "callbacks" / "killer.yaml").write_text(
        "defaults: [default]\nkiller:\n  _target_: mine.killer.Killer\n  now: false\n"
    )
    done = cli("-m", "--config-dir=own", "callbacks=killer", "allow_targets=[mine]", "callbacks.killer.now=true,false",
               "hydra/launcher=joblib", "hydra.launcher.n_jobs=1", "model=tiny_gpt2", "data=alpaca", "data.path=sample",
               "output_dir=all", *FAST, cwd=tmp_path)  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "was killed by SIGKILL" in done.stderr
    assert [row["status"] for row in rows_of(tmp_path / "all")] == ["killed", "finished"]


@pytest.mark.slow
def test_a_sweep_over_runs_of_several_processes(tmp_path):
    done = cli("-m", "trainer=ddp", "trainer.accelerator=cpu", "seed=1,2", "model=tiny_gpt2", "data=alpaca", "data.path=sample",
               "output_dir=all", *FAST, cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [row["status"] for row in rows_of(tmp_path / "all")] == ["finished", "finished"]


@pytest.mark.parametrize("file", sorted((conf_dir() / "hydra").glob("*/*.yaml")), ids=lambda file: file.stem)
def test_a_plugin_that_is_not_installed_says_how_to_get_it(file, monkeypatch):
    from llmft.config import cli_args

    option = f"hydra/{file.parent.name}={file.stem}"
    monkeypatch.setattr(cli_args, "find_spec", lambda _: None)
    extra = file.stem.partition("_")[0]
    assert plugin_faults([option]) == [f"{option}: is not installed; pip install 'llmft[{extra}]'"]
    assert OmegaConf.load(file)._target_.startswith("hydra_plugins.")


def test_a_launcher_that_there_is_not_is_named(llmft):
    code, _, err = llmft("-m", "hydra/launcher=joblip", "seed=1,2")
    assert code == 2
    assert "hydra/launcher=joblip: no such option. Did you mean joblib?" in err
