"""The base model beside a run's: the untrained weights, asked as the tuned ones are."""

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from llmft.data.records import Turn
from llmft.generation.load import load_base, load_generator
from llmft.utils.errors import UserError
from tests.conftest import cli

CONTEXTS = [(Turn("user", question),) for question in ("Hi", "What is a llama?")]


@pytest.fixture
def cfg(load_config, monkeypatch):
    monkeypatch.setattr(HydraConfig, "get", lambda: OmegaConf.create({"overrides": {"task": []}}))
    return lambda *overrides: load_config(*overrides, command="answer")


@pytest.mark.slow  # beside an adapter: tests/integration/commands/test_serve.py
@pytest.mark.parametrize("peft", ["none", "lora"])
def test_the_base_is_the_untrained_model(peft, cfg, tmp_path):
    done = cli(
        "model=tiny_gpt2", f"peft={peft}", "data.limit=24", "trainer.max_steps=6", "optim.lr=1e-2", "generation.max_new_tokens=8", "questions=0",
        "callbacks.samples.number=0", "evaluate.rows=0", "prompt=plain", "report.write=false", "output_dir=run",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    tuned, _ = load_generator(asked := cfg(f"run={tmp_path / 'run'}"))
    base = load_base(asked, tuned)
    plain, _ = load_generator(cfg("model=tiny_gpt2", "prompt=plain", "generation.max_new_tokens=8"))
    answers = plain.answers(CONTEXTS)
    assert base.answers(CONTEXTS) == base.with_settings(batch_size=1).answers(CONTEXTS) == answers
    assert tuned.answers(CONTEXTS) != answers


def test_a_plain_model_has_no_base(cfg):
    asked = cfg("model=tiny_gpt2")
    with pytest.raises(UserError, match="pass run=RUN"):
        load_base(asked, load_generator(asked)[0])
