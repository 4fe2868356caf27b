"""Secrets are redacted in what a run writes."""

import pytest
from omegaconf import OmegaConf

from llmft.config.cli_args import composed
from llmft.config.override_text import quoted
from llmft.config.redact import hide_environment, redact_argument, save_config
from llmft.config.typed_overrides import task_overrides
from llmft.sweep.sweeper import without_secrets
from llmft.utils.errors import UserError
from llmft.utils.shell import argument
from llmft.utils.text import printable


def test_secrets_do_not_reach_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMFT_TEST_KEY", "hunter2")
    cfg = OmegaConf.create(
        {
            "api_key": "sk-1",
            "hub": {"token": "hf_1", "pad_token_id": 3, "max_tokens": 4, "password": None},
            "url": "http://x/${oc.env:LLMFT_TEST_KEY}",
            "hop": "${url}/more",
            "plain": ["${oc.env:LLMFT_TEST_KEY}", "kept", "${hub.max_tokens}"],
        }
    )
    save_config(cfg, tmp_path / "config.yaml")
    text = (tmp_path / "config.yaml").read_text()
    assert not any(secret in text for secret in ("hunter2", "sk-1", "hf_1"))
    again = OmegaConf.load(tmp_path / "config.yaml")
    assert OmegaConf.to_container(again, resolve=False) == {
        "api_key": "***",
        "hub": {"token": "***", "pad_token_id": 3, "max_tokens": 4, "password": None},
        "url": "http://x/${oc.env:LLMFT_TEST_KEY}",
        "hop": "${url}/more",
        "plain": ["${oc.env:LLMFT_TEST_KEY}", "kept", 4],
    }
    assert again.hop == "http://x/hunter2/more"  # it still means the same, where the variable is set
    assert redact_argument("model.hf_token=tok") == "model.hf_token=***"
    assert redact_argument("data.max_prompt_tokens=5") == "data.max_prompt_tokens=5"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (
            "+logger.own={_target_: a.B, api_key: sk-1, project: p}",
            "+logger.own={_target_: a.B, api_key: ***, project: p}",
        ),
        ("+a={b: [{hub_token: 'x, y'}], 'password': \"q\"}", "+a={b: [{hub_token: ***}], 'password': ***}"),
        ("+a={max_tokens: 5, key_env: NAME}", "+a={max_tokens: 5, key_env: NAME}"),
        ("aws.secret_access_key=x", "aws.secret_access_key=***"),
    ],
)
def test_a_secret_in_a_mapping_of_the_command_line_is_masked(given, shown):
    assert redact_argument(given) == shown


def test_values_from_the_environment_are_shown_as_interpolations(monkeypatch):
    monkeypatch.setenv("LLMFT_TEST_FOLDER", "/a/secret place")
    monkeypatch.setenv("LLMFT_TEST_NAME", "FOLDER")
    monkeypatch.setenv("LLMFT_TEST_WORD", "data")
    cfg = OmegaConf.create(
        {
            "run": "${oc.env:LLMFT_TEST_${.part}}/run",
            "part": "${oc.env:LLMFT_TEST_NAME}",
            "path": ["${oc.env:LLMFT_TEST_WORD}", "${oc.env:LLMFT_TEST_MISSING}"],
            "token": "sk-typed-secret",
        }
    )
    hide_environment(cfg)
    assert printable("/a/secret place/run: no data") == "${oc.env:LLMFT_TEST_FOLDER}/run: no data"
    assert str(UserError("token sk-typed-secret")) == "token ***"
    # the line can be pasted into a shell, and Hydra resolves it again
    assert argument("resume", "/a/secret place/run") == "'resume=\"${oc.env:LLMFT_TEST_FOLDER}/run\"'"
    assert cfg.run == "/a/secret place/run"
    monkeypatch.delenv("LLMFT_TEST_FOLDER")
    assert printable("/a/secret place/run") == "/a/secret place/run"


def test_overrides_of_a_job_are_not_resolved(monkeypatch):
    monkeypatch.setenv("LLMFT_TEST_KEY", "hunter2")
    cfg = composed("preview", ["model=tiny_gpt2", "data.path=${oc.env:LLMFT_TEST_KEY}"])
    assert cfg.data.path == "hunter2"
    assert task_overrides() == ["model=tiny_gpt2", "data.path=${oc.env:LLMFT_TEST_KEY}"]


def test_a_sweeps_config_is_kept_without_secrets(monkeypatch):
    monkeypatch.setenv("LLMFT_TEST_KEY", "hunter2")
    typed = ["data.path=${oc.env:LLMFT_TEST_KEY}", "+a.api_key=sk-1"]
    job = {"override_dirname": "a.api_key=sk-1"}
    cfg = OmegaConf.create(
        {"hydra": {"overrides": {"task": typed}, "job": job}, "a": {"api_key": "sk-1"}, "p": "${oc.env:LLMFT_TEST_KEY}"}
    )
    kept = OmegaConf.to_yaml(without_secrets(cfg))
    assert "sk-1" not in kept
    assert "hunter2" not in kept
    assert "p: ${oc.env:LLMFT_TEST_KEY}" in kept
    assert cfg.a.api_key == "sk-1"  # that of the jobs


@pytest.mark.parametrize(
    ("given", "quoted_one"),
    [
        ("data.path=${oc.env:X}/y", "data.path='${oc.env:X}/y'"),
        ("data.path=${oc.env:X}/y,b", "data.path='${oc.env:X}/y',b"),
        ("optim.lr=1e-3,1e-2", "optim.lr=1e-3,1e-2"),
        ("data.path='${oc.env:X}/y'", "data.path='${oc.env:X}/y'"),
    ],
)
def test_an_interpolation_of_a_sweep_stays_one(given, quoted_one):
    """Hydra's sweepers escape an interpolation without quotes, which makes it plain text."""
    assert quoted(given, multirun=True) == quoted_one
