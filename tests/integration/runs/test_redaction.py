"""Keys that are set in the environment are in no file of a run, of its export or of a sweep, and in nothing that is printed."""

import zipfile

import pytest

from tests.integration.conftest import SHORT

KEYS = {
    name: f"sk-{number:02}-d0nT-Te11-any0ne-{name[::-1].lower()}"
    for number, name in enumerate(
        (
            "OPENAI_API_KEY",
            "HF_TOKEN",
            "WANDB_API_KEY",
            "MLFLOW_TRACKING_PASSWORD",
            "AWS_SECRET_ACCESS_KEY",
            "LLMFT_API_KEY",
        )
    )
}


def leaks(folder):
    """Which keys stand in which files, also inside archives."""
    found = []
    for file in folder.rglob("*"):
        if not file.is_file() or file.is_symlink():
            continue
        contents = [file.read_bytes()]
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as packed:
                contents += [packed.read(name) for name in packed.namelist()]
        found += [(file, name) for name, key in KEYS.items() for content in contents if key.encode() in content]
    return found


@pytest.fixture(autouse=True)
def _keys(monkeypatch):
    for name, key in KEYS.items():
        monkeypatch.setenv(name, key)


@pytest.mark.slow
def test_no_file_of_a_run_holds_a_key(llmft, tmp_path):
    short = [o for o in SHORT if not o.startswith(("logger", "report", "evaluate", "callbacks.samples"))]
    line = ["model=tiny_gpt2", "data=alpaca", "peft=lora", "evaluate.rows=2", "callbacks.samples.number=1", *short]
    code, out, err = llmft(*line, "output_dir=run", "show_traceback=true", "model.license=${oc.env:HF_TOKEN}")
    assert code == 2  # a text may not be taken from the environment
    said = out + err
    code, out, err = llmft(*line, "output_dir=run")
    assert code == 0, err
    said += out + err
    code, out, err = llmft("export", "run=run", "to=export", "zip=true")
    assert code == 0, err
    said += out + err
    code, out, err = llmft("report", "runs=.")
    assert code == 0, err
    assert len(list(tmp_path.rglob("*"))) > 20
    assert leaks(tmp_path) == []
    assert not [name for name, key in KEYS.items() if key in said + out + err]


def test_a_key_in_a_file_would_be_found(tmp_path):
    (tmp_path / "a").write_text(KEYS["HF_TOKEN"])
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("inside", KEYS["WANDB_API_KEY"] * 9)
    assert [name for _, name in sorted(leaks(tmp_path))] == ["HF_TOKEN", "WANDB_API_KEY"]


def test_a_secret_on_the_command_line_is_struck_out(llmft, tmp_path):
    """A key under a name that says so: the run directory has three asterisks, and the command line that it remembers."""
    logger = "+logger.own._target_=lightning.pytorch.loggers.CometLogger"
    line = ["model=tiny_gpt2", "data.path=sample", "debug=fast", "output_dir=run", logger]
    code, _, err = llmft(*line, f"+logger.own.api_key={KEYS['OPENAI_API_KEY']}")
    assert code == 2  # its package is not installed, which shows after the run directory is made
    assert "logger=own: is not installed" in err
    assert (tmp_path / "run" / "config.yaml").is_file()
    assert leaks(tmp_path) == []
