"""Secrets are redacted in what a run writes."""

from omegaconf import OmegaConf

from llmft.config.redact import redact_argument, save_config


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
