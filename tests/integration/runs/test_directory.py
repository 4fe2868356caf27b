"""What a run leaves behind, and that everything else works from it alone."""

import csv
import functools
import json
import math
import shutil

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig

from llmft import load_run
from llmft.metrics.format import split_name
from llmft.utils.text import in_markdown
from tests.conftest import forked, read_json_lines

RUNS = {
    "t5": ("tiny_t5", "alpaca", "none"),
    "gpt2": ("tiny_gpt2", "academic", "lora"),
    "llama": ("tiny_llama", "psychology", "lora"),
}
WATCHED = [
    "train/loss",
    "train/lr",
    "train/grad_norm",
    "train/perplexity",
    "train/tokens_per_second",
    "val/loss",
    "val/perplexity",
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Each run once; a parametrized fixture would make it anew whenever the order of the tests alternates."""
    return functools.cache(lambda name: make(name, tmp_path_factory.mktemp(name)))


@pytest.fixture(
    params=[pytest.param("t5", marks=pytest.mark.slow), "gpt2", pytest.param("llama", marks=pytest.mark.slow)]
)
def run(request, made):
    return made(request.param)


def make(name, folder):
    model, data, peft = RUNS[name]
    done = forked(
        f"model={model}", f"data={data}", "data.path=sample", f"peft={peft}", "data.limit=60", "trainer.max_steps=12", "generation.max_new_tokens=8",
        "data.max_prompt_tokens=900", "data.max_answer_tokens=900", "data.batch_size=4", "optim.lr=1e-3", "trainer.log_every_n_steps=5", "report.write=false", "output_dir=made",
        cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "made", done


def test_the_files(run):
    folder, done = run
    files = {str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()}
    weights = "model/model.safetensors" if "t5" in str(folder) else "model/adapter_model.safetensors"
    assert files >= {
        "config.yaml", "run.json", "metrics.csv", "steps.csv", "samples.jsonl", "log.txt", "checkpoints/last.ckpt", "checkpoints/best.ckpt",
        weights, "model/tokenizer.json", "model/chat_template.jinja", "model/generation_config.json", "model/README.md",
    }  # fmt: skip
    assert not [f for f in files if f.endswith(".tmp") or ".hydra" in f]
    assert str(folder) in done.stdout


def test_run_json(run):
    record = json.loads((run[0] / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["seed"] == 42
    assert record["data"]["rows"] == record["data"]["kept"] == 60
    assert len(record["data"]["sha256"]) == 64
    assert 0 < record["parameters"]["trainable"] <= record["parameters"]["total"]
    assert record["metrics"]["steps"] == 12
    assert record["metrics"]["after"]["val/loss"] < record["metrics"]["before"]["val/loss"]
    assert record["objective"] == record["metrics"]["after"]["val/loss"]
    assert record["seconds"] > 0
    assert record["peak_memory_mib"]["cpu"] > 100
    assert {"torch", "lightning", "transformers", "peft", "python"} <= set(record["versions"])


def test_metrics_csv_has_first_last_and_every_nth_step_once(run):
    rows = list(csv.DictReader((run[0] / "metrics.csv").open()))
    steps = [int(row["step"]) for row in rows]
    assert steps == sorted(set(steps))
    assert {0, 1, 5, 10, 12} <= set(steps)
    assert list(rows[0])[:8] == ["step", "epoch", *WATCHED[:3], "train/tokens", "val/loss", "val/perplexity"]
    assert all(row["train/loss"] for row in rows[1:])
    record = json.loads((run[0] / "run.json").read_text())
    validated = {int(row["step"]): float(row["val/loss"]) for row in rows if row["val/loss"]}
    assert validated[0] == record["metrics"]["before"]["val/loss"]
    assert validated[record["metrics"]["best_step"]] == min(validated.values()) == record["objective"]
    for row in rows[1:]:  # linear: up over the first 10 % of 12 steps, down to 0 behind the last
        step = int(row["step"]) - 1
        assert float(row["train/lr"]) == pytest.approx(1e-3 * (step if step < 1 else (12 - step) / 11))


def test_steps_csv_has_every_step(run):
    rows = list(csv.DictReader((run[0] / "steps.csv").open()))
    assert [int(row["step"]) for row in rows] == list(range(1, 13))
    rates = [float(row["train/lr"]) for row in rows]
    assert rates == [0, *(pytest.approx(1e-3 * (12 - step) / 11) for step in range(1, 12))]
    assert max(rates) == 1e-3  # the peak is in no row of metrics.csv
    logged = {row["step"]: row for row in csv.DictReader((run[0] / "metrics.csv").open()) if row["train/loss"]}
    for row in rows:
        assert float(row["train/perplexity"]) == math.exp(float(row["train/loss"]))
        assert row.items() <= logged.get(row["step"], row).items()


def test_tensorboard_shows_the_same(run):
    events = EventAccumulator(str(run[0] / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    assert set(WATCHED) <= set(events.Tags()["scalars"])
    rows = list(csv.DictReader((run[0] / "metrics.csv").open()))
    every = list(csv.DictReader((run[0] / "steps.csv").open()))
    for name, table in {"train/loss": every, "train/lr": every, "train/tokens": rows, "val/loss": rows}.items():
        expected = [(int(row["step"]), float(row[name])) for row in table if row[name]]
        assert [(e.step, pytest.approx(e.value, rel=1e-6)) for e in events.Scalars(name)] == expected  # none twice
    texts = [tag for tag in events.Tags()["tensors"] if tag.startswith("samples/")]
    assert len(texts) == 3
    assert set(events.Tags()["histograms"]) >= {"with_lengths/prompt_tokens", "with_lengths/answer_tokens"}


def test_tensorboard_compares_runs_by_settings_and_outcome(run):
    events = EventAccumulator(str(run[0] / "tensorboard"))
    events.Reload()
    kept = events.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    found = plugin_data_pb2.HParamsPluginData.FromString(kept).session_start_info.hparams  # pyright: ignore[reportAttributeAccessIssue]
    cfg, record = OmegaConf.load(run[0] / "config.yaml"), json.loads((run[0] / "run.json").read_text())
    for key in ("model.name", "data.name", "peft.name"):
        assert found[key].string_value == OmegaConf.select(cfg, key)
    for key in ("seed", "optim.lr", "data.batch_size"):
        assert found[key].number_value == OmegaConf.select(cfg, key)
    assert events.Scalars("with_best_weights/val_loss")[-1].value == pytest.approx(record["objective"])
    (group,) = {"test", "val_scores"} & set(record["metrics"])
    assert group == ("test" if cfg.data.split.test else "val_scores")  # validation rows are never called test
    assert events.Scalars(f"with_best_weights/{group}_loss")[-1].value == pytest.approx(
        record["metrics"][group]["loss"]
    )
    assert not [tag for tag in events.Tags()["scalars"] if tag < "train/"]  # TensorBoard sorts by name
    kept = events.PluginTagToContent("hparams")["_hparams_/experiment"]
    columns = plugin_data_pb2.HParamsPluginData.FromString(kept).experiment  # pyright: ignore[reportAttributeAccessIssue]
    assert [metric.display_name for metric in columns.metric_infos][:2] == ["val loss", f"{group} loss"]
    typed = {info.name for info in columns.hparam_infos if info.differs}
    assert {"model.name", "data.batch_size", "optim.lr", "trainer.max_steps"} <= typed  # on the command line
    assert not {"scheduler.name", "seed", "optim.weight_decay", "output_dir"} & typed


def test_samples_ask_the_same_questions_each_time(run):
    rows = read_json_lines(run[0] / "samples.jsonl")
    asked = {}
    for row in rows:
        asked.setdefault(row["step"], []).append((row["id"], row["place"], row["question"], row["reference"]))
    assert {0, 12} <= set(asked)
    assert all(questions == asked[0] and len(questions) == 3 for questions in asked.values())


def test_checkpoints_hold_the_trainable_weights_and_load_safely(run):
    record = json.loads((run[0] / "run.json").read_text())
    for name in ("last", "best"):
        state = torch.load(run[0] / "checkpoints" / f"{name}.ckpt", weights_only=True)
        assert sum(tensor.numel() for tensor in state["state_dict"].values()) == record["parameters"]["trainable"]
        assert all(tensor.dtype == torch.float32 for tensor in state["state_dict"].values())


def questions_of(folder):
    return [row for row in read_json_lines(folder / "samples.jsonl") if row["step"] == 12]


def test_model_loads_with_the_plain_libraries_and_answers_the_same(run, tmp_path):
    folder, _ = run
    cfg = OmegaConf.load(folder / "config.yaml")
    record = json.loads((folder / "run.json").read_text())
    auto_class = AutoModelForSeq2SeqLM if cfg.model.family == "seq2seq" else AutoModelForCausalLM
    if cfg.peft.name == "lora":
        from peft import PeftModel

        base = auto_class.from_pretrained(record["model"]["path"], dtype=torch.float32)
        before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
        model = PeftModel.from_pretrained(base, folder / "model")
        size = (folder / "model" / "adapter_model.safetensors").stat().st_size
        assert size < 4.5 * record["parameters"]["trainable"] + 10_000
        assert len(load_file(folder / "model" / "adapter_model.safetensors")) > 0
        merged = model.merge_and_unload()
        assert any(not torch.equal(before[name], tensor) for name, tensor in merged.state_dict().items())
        model = merged
    else:
        model = auto_class.from_pretrained(folder / "model", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder / "model", padding_side="left")
    system = [{"role": "system", "content": cfg.data.system}] if cfg.data.system else []
    row = questions_of(folder)[0]
    chat = [*system, {"role": "user", "content": row["question"]}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt")
    out = model.eval().generate(**ids, generation_config=GenerationConfig.from_pretrained(folder / "model"))  # pyright: ignore
    given = 1 if cfg.model.family == "seq2seq" else ids["input_ids"].shape[1]
    plain = tokenizer.decode(out[0, given:], skip_special_tokens=True, clean_up_tokenization_spaces=False)
    shutil.copytree(folder, tmp_path / "moved")
    asked = forked("answer", "run=moved", f"question={row['question']}", "format=json", cwd=tmp_path)
    assert asked.returncode == 0, asked.stderr
    assert json.loads(asked.stdout)["answer"] == plain


def test_the_card_says_what_was_scored_and_no_path_of_this_machine(run):
    folder, _ = run
    text = (folder / "model" / "README.md").read_text()
    found = json.loads((folder / "evaluation.json").read_text())
    assert f"{found['rows']} of {found['of']} {split_name(found['split'])} rows" in text
    record, run = json.loads((folder / "run.json").read_text()), load_run(folder)
    assert run.verdict.as_dict() == record["verdict"] == found["verdict"]
    assert f"**{in_markdown(run.verdict.headline)}**" in text
    assert all(f"| {name} | " in text for name in found["scores"])
    metrics = json.loads((folder / "run.json").read_text())["metrics"]
    assert f"| best checkpoint (step) | {metrics['best_step']} |" in text
    assert metrics["best"]["step"] == metrics["best_step"]
    assert f"| when it was best | {metrics['best']['sentence']} |" in text
    assert "/tmp" not in text
    assert str(folder.parents[1]) not in text
    assert "`tiny:" in text


def test_the_config_stands_alone(run):
    cfg = OmegaConf.load(run[0] / "config.yaml")
    assert OmegaConf.to_container(cfg, resolve=False) == OmegaConf.to_container(cfg, resolve=True)
    assert cfg.output_dir == str(run[0])


def test_a_second_run_into_the_same_folder_is_refused(run):
    done = forked("model=tiny_gpt2", f"output_dir={run[0]}", cwd=run[0].parent)
    assert done.returncode == 2
    assert f"holds a run already; resume={run[0]} continues it, or choose another output_dir" in done.stderr
    assert "remove" not in done.stderr
    assert json.loads((run[0] / "run.json").read_text())["status"] == "finished"
