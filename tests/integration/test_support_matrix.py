"""The table of docs/support.md: what it calls refused is refused with that message, what it calls tested trains."""

import csv
import json
import math
import random
from collections.abc import Collection
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from llmft import Run, UserError, train
from llmft.config.schema import COMMANDS
from llmft.config.validate import check
from llmft.models.architecture_check import architecture_faults
from llmft.models.backbone import tiny
from tests.support import twins
from tests.support.hub_stub import TOKEN, hub
from tests.support.ranks import two_ranks
from tests.support.support_matrix import (
    ACTIVATIONS,
    ADAPTERS,
    BATCHING,
    DEVICE,
    EXPORT,
    FAMILY,
    GPU,
    METHOD,
    OPTIMIZER,
    PRECISION,
    SEVERAL,
    Setting,
    refusals,
    settings,
    status,
)

SHORT = (
    "data=alpaca", "data.path=sample", "data.limit=40", "data.split={val: 0.2}", "data.max_prompt_tokens=256", "data.max_answer_tokens=128", "trainer.max_steps=2",
    "trainer.log_every_n_steps=1", "questions=0", "evaluate.rows=0", "report.write=false", "logger=none", "callbacks.samples.number=0",
    "callbacks.progress.refresh_rate=0", "model.dropout=0", "optim.lr=1e-3", "scheduler=constant",
)  # fmt: skip
QUANTIZED = {"QLoRA NF4", "QLoRA FP4", "LoRA on int8"}
REFUSED = [s for s in settings() if refusals(s) and not s.export]
TRAINED = [s for s in settings() if status(s) == "tested" and not s.export]
PRODUCT = map(Setting, *zip(*product(FAMILY, METHOD, BATCHING, PRECISION, DEVICE, OPTIMIZER, ACTIVATIONS), strict=True))
COMBINED = random.Random(0).sample([s for s in PRODUCT if status(s) == "tested"], 24)
EXPORTED = [s for s in settings() if s.export and s.device not in GPU]
# In the default run: every refusal, alone or with others.
FAST_REFUSED = {str(refusals(s)): s for s in reversed(REFUSED)}.values()
# The weights of an export, by its form.
WEIGHTS = {"adapter": "adapter_model.safetensors", "CTranslate2": "model.bin", "ONNX": "model.onnx"}
# In the default run: T5, a quantized base, packed; tokens; a teacher and a stream.
FAST = {
    Setting("T5", "QLoRA NF4", "packed"),
    Setting("causal", "DoRA", "tokens"),
    Setting("causal", "distillation", "streaming"),
}


def slow(found: list[Setting], fast: Collection[Setting]) -> list[Any]:
    return [pytest.param(s, id=str(s), marks=() if s in fast else pytest.mark.slow) for s in found]


@pytest.fixture(scope="session")
def line(tmp_path_factory):
    """The command line of a setting, with a batch of 4 examples over all processes and no dropout."""
    root = tmp_path_factory.mktemp("models")

    def built(family: str, name: str) -> Path:
        folder = root / name
        if family == "BART":
            twins.build("bart", folder)
        elif not folder.exists():
            tiny.build({"T5": "t5", "causal": "llama"}[family], folder)
        return folder

    def words(setting: Setting) -> list[str]:
        examples = 2 if setting.device in SEVERAL else 4
        bart = built("BART", "bart") if setting.family == "BART" else ""
        teacher = built(setting.family, f"teacher-{setting.family}") if setting.method == "distillation" else ""
        overrides = setting.overrides().format(bart=bart, teacher=teacher).split()
        lora = ["peft.dropout=0"] if setting.method in ADAPTERS else []
        return [*overrides, *SHORT, *lora, f"data.batch_size={examples}"]

    return words


def messages(cfg: Any, command: str = "train") -> set[str]:
    """What the checks before a training say."""
    try:
        schema: Any = COMMANDS[command]
        check(cfg, schema, architecture=architecture_faults)
    except UserError as error:
        head, *faults = str(error).split("\n  - ")
        return set(faults) or {head}
    return set()


def expected(setting: Setting) -> set[str]:
    return {refusal.message for refusal in refusals(setting)}


@pytest.fixture
def gpu(monkeypatch):
    """A machine with a GPU, as far as the checks can see: without one, the same rules would refuse more."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda *_: True)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("setting", slow(REFUSED, fast=FAST_REFUSED))
def test_a_refused_setting_is_refused_with_its_messages(setting, line, load):
    assert messages(load(*line(setting))) == expected(setting)


@pytest.mark.usefixtures("gpu")
def test_estimate_refuses_what_a_training_would(line, load):
    setting = Setting("T5", "unfreezing", "packed", "16-mixed", "FSDP on CPUs")
    assert messages(load(*line(setting), command="estimate"), "estimate") == expected(setting)
    assert len(expected(setting)) == 5


@pytest.mark.slow
@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("method", METHOD)
@pytest.mark.parametrize("family", FAMILY)
def test_a_combination_is_refused_exactly_where_the_table_says(family, method, line, load):
    others = random.Random(0)
    for chosen in product(BATCHING, PRECISION, DEVICE):
        setting = Setting(family, method, *chosen, others.choice(list(OPTIMIZER)), others.choice(list(ACTIVATIONS)))
        assert messages(load(*line(setting))) == expected(setting), setting


class Trained(NamedTuple):
    """What a training left behind: the validation loss before and after, the loss and the tokens of each step, parameters."""

    path: Path
    before: float
    after: float
    losses: list[float]
    tokens: list[float]
    total: int
    trainable: int


@pytest.fixture(scope="session")
def trained(tmp_path_factory, line):
    """Train a setting, once."""
    found: dict[Setting, Trained] = {}

    def run(setting: Setting) -> Trained:
        setting = setting._replace(export="")
        if setting not in found:
            path = tmp_path_factory.mktemp("runs") / "run"
            words = [*line(setting), f"output_dir={path}"]
            if setting.device in SEVERAL:
                done = two_ranks(*words, cwd=path.parent)
                assert [rank.returncode for rank in done] == [0, 0], done[0].stderr + done[1].stderr
            else:
                train(words)
            found[setting] = read(path)
        return found[setting]

    return run


def read(path: Path) -> Trained:
    record = json.loads((path / "run.json").read_text())
    assert record["status"] == "finished"
    rows = list(csv.DictReader((path / "metrics.csv").open()))
    losses, tokens = ([float(row[name]) for row in rows if row.get(name)] for name in ("train/loss", "train/tokens"))
    before, after = (record["metrics"][when]["val/loss"] for when in ("before", "after"))
    counts = record["parameters"]
    return Trained(path, before, after, losses, tokens, counts["total"], counts["trainable"])


@pytest.mark.parametrize("setting", slow(list(dict.fromkeys([*TRAINED, *COMBINED])), fast=FAST))
def test_a_tested_setting_trains(setting, trained):
    run = trained(setting)
    assert len(run.losses) == 2
    assert all(map(math.isfinite, (*run.losses, run.before, run.after)))
    assert run.after < run.before
    check_method(setting, run)
    # the loss before training is that of the plain model, to the rounding of the base and of the precision
    stream = {"batching": setting.batching} if setting.batching == "streaming" else {}  # splits by another rule
    plain = trained(Setting(setting.family, "full")._replace(**stream)).before
    exact = setting.method not in QUANTIZED and setting.precision == "32-true"
    assert run.before == pytest.approx(plain, rel=1e-5 if exact else 2e-2)
    assert exact or abs(run.before - plain) > 1e-6 * plain
    if setting.activations == "recomputed":
        stored = trained(setting._replace(activations="stored"))
        rounding = (
            1e-5 if setting.precision == "32-true" else 1e-2
        )  # another attention kernel, which autocast rounds otherwise
        assert (*run.losses, run.after) == pytest.approx((*stored.losses, stored.after), rel=rounding)
    if setting.device in SEVERAL and setting.batching == "rows":
        one = trained(setting._replace(device="CPU"))  # 2 processes x 2 examples against 1 x 4
        assert run.tokens == one.tokens
        rounding = 1e-4 if setting.precision == "32-true" and setting.optimizer == "AdamW" else 1e-2
        assert (*run.losses, run.after) == pytest.approx((*one.losses, one.after), rel=rounding)


def check_method(setting: Setting, run: Trained) -> None:
    """The saved weights and the number of trainable parameters are those of the method."""
    files = {file.name for file in (run.path / "model").iterdir()}
    if setting.method not in ADAPTERS:
        assert "model.safetensors" in files
        assert "adapter_model.safetensors" not in files
        assert run.trainable == run.total if setting.method != "head" else run.trainable < run.total / 4
        return
    assert "adapter_model.safetensors" in files
    assert run.trainable < run.total / 4
    adapter = json.loads((run.path / "model" / "adapter_config.json").read_text())
    assert (adapter["use_dora"], adapter["use_rslora"]) == (setting.method == "DoRA", setting.method == "rsLoRA")


@pytest.mark.slow
@pytest.mark.parametrize("setting", EXPORTED, ids=str)
def test_an_export(setting, trained, tmp_path, monkeypatch):
    """``export`` compares the logits of what it wrote by itself, and keeps nothing that differs."""
    run = Run(trained(setting).path)
    words = dict(word.split("=") for word in EXPORT[setting.export].split())
    wanted: dict[str, Any] = {"form": words["form"], "zip": "zip" in words}
    if refused := expected(setting):
        with pytest.raises(UserError) as error:
            run.export(tmp_path / "out", **wanted)
        assert {str(error.value)} == refused
        assert not list(tmp_path.iterdir())
        return
    if setting.export != "Hub":
        run.export(tmp_path / "out", **wanted)
        held = {path.name for path in (tmp_path / "out").iterdir()} if setting.export != "zip" else set()
        weights = WEIGHTS.get(setting.export, "model.safetensors")
        assert weights in held or (tmp_path / "out.zip").stat().st_size > 100_000
        return
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with hub() as stub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", stub.url)
        run.export(hub="me/model", **wanted)
    assert {"model.safetensors", "config.json", "README.md"} <= stub.files.keys()
