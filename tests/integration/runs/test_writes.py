"""A file of ``--config-dir`` names places outside: nothing there is opened for writing, created or removed, by a refused run either.

An audit hook of the interpreter sees each system call of Python's; that the folder stays as it is covers those of libraries.
"""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from llmft.config.cli_args import check_command_line
from llmft.config.paths import conf_dir
from llmft.config.tree import walk
from llmft.utils.errors import UserError
from tests.integration.conftest import SHORT

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
EVENTS = (
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.chmod",
    "os.utime",
)
_watched: dict[str, list[str]] = {}


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if not _watched or event not in ("open", *EVENTS):
        return
    if event == "open" and not (isinstance(args[2], int) and args[2] & WRITES):
        return
    for folder, touched in _watched.items():
        touched += [f"{event} {path}" for path in args[:2] if str(path).startswith(folder)]


@pytest.fixture(scope="session")
def _hook() -> None:
    sys.addaudithook(_audit)  # it cannot be removed


@pytest.fixture
def outside(_hook, tmp_path_factory) -> Iterator[Path]:
    """A folder with one file, and with nothing else at the end."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "victim").write_text("precious")
    _watched[str(folder)] = touched = []
    yield folder
    del _watched[str(folder)]
    assert touched == []
    assert [file.name for file in folder.iterdir()] == ["victim"]
    assert (folder / "victim").read_text() == "precious"


def theirs(folder: Path, keys: dict[str, Any]) -> list[str]:
    """A command line with a file that sets these dotted keys."""
    nodes: dict[str, Any] = {}
    for key, value in keys.items():
        *above, name = key.split(".")
        node = nodes
        for part in above:
            node = node.setdefault(part, {})
        node[name] = value
    folder = folder / f"theirs-{'-'.join(keys)[:40]}"  # tests read a file once
    file = folder / "experiment" / "theirs.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"# @package _global_\n{yaml.safe_dump(nodes)}")
    return [f"--config-dir={folder}", "model=tiny_gpt2", "experiment=theirs"]


def test_a_refused_run_touches_nothing_outside(outside, llmft, tmp_path):
    log = {"class": "logging.FileHandler", "filename": f"{outside}/victim", "mode": "w"}
    keys = {f"hydra.{part}.handlers.x": log for part in ("job_logging", "hydra_logging")}
    keys |= {
        "hydra.output_subdir": f"{outside}/sub",
        "hydra.run.dir": f"{outside}/run",
        "data.cache": f"{outside}/cache",
    }
    code, _, err = llmft(*theirs(tmp_path, keys), "data.path=sample", "debug=fast")
    assert code == 2
    assert err.count("\n  - ") == 7, err  # a filename and a mode of each, and three folders
    assert [file.name.partition("-")[0] for file in tmp_path.iterdir()] == ["theirs"]


@pytest.mark.slow
def test_a_stored_run_decides_only_about_its_own_folder(outside, lora_run, llmft, tmp_path):
    """Sent by somebody, and edited."""
    run = shutil.copytree(lora_run, tmp_path / "run")
    cfg = OmegaConf.load(run / "config.yaml")
    cfg.data.cache, cfg.output_dir = f"{outside}/cache", f"{outside}/run"
    OmegaConf.save(cfg, run / "config.yaml")
    code, _, err = llmft("evaluate", "run=run", "evaluate.rows=1", "evaluate.base=false")
    assert code == 0, err
    assert f"data.cache={outside}/cache of the stored config is not used" in err
    code, _, err = llmft("resume=run", "trainer.max_steps=5")
    assert code == 0, err
    cfg.callbacks.pruning.study = f"{outside}/study.journal"
    cfg.logger = {"x": {"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": str(outside)}}
    OmegaConf.save(cfg, run / "config.yaml")
    code, _, err = llmft("resume=run", "trainer.max_steps=6")
    assert (code, f"logger.x.save_dir={outside}: is outside of output_dir=" in err) == (2, True), err


def _keys() -> list[str]:
    """Every key of a training's config that is a text or null."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("train", ["model=tiny_gpt2"], return_hydra_config=True)
    found = [
        key
        for key, value in walk(OmegaConf.to_container(cfg, resolve=False))
        if value is None or isinstance(value, str)
    ]
    of_hydra_itself = ("hydra.runtime.", "hydra.overrides.")  # Hydra sets them after the files are read
    return [key for key in found if not key.startswith(of_hydra_itself) and "[" not in key]


@pytest.mark.slow
def test_every_key_with_a_path_outside(outside, llmft, tmp_path):
    """Each key by itself through composition and all checks; then those that are accepted, in complete runs."""
    accepted, refused = [], {}
    for key in _keys():
        try:
            check_command_line("train", [*theirs(tmp_path, {key: f"{outside}/x"}), *SHORT], multirun=False)
        except UserError as error:
            refused[key] = str(error)
            continue
        accepted.append(key)
    print(f"accepted before Hydra starts: {accepted}")
    assert len(accepted) > 50, refused
    assert not {"output_dir", "resume", "data.cache", "hydra.run.dir", "hydra.output_subdir"} & set(accepted)
    texts = []
    for key in accepted:
        code, _, _ = llmft(*theirs(tmp_path, {key: f"{outside}/x"}), *SHORT, "trainer.max_steps=1")
        texts += [key] if code == 0 else []
    assert "data.notice" in texts
