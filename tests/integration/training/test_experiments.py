"""The five experiments, proven without weights: architectures from their published numbers, on torch's meta device."""

import csv
import json
from typing import Any

import pytest
import torch
from hydra.utils import get_class
from transformers import AutoConfig

from llmft.config.paths import conf_dir
from llmft.config.schema import TrainConfig
from llmft.config.validate import check
from llmft.models import architecture_check
from llmft.models.peft import lora, trainable
from llmft.report import curves

# What the models' own config.json say.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "distilgpt2": {"model_type": "gpt2", "n_layer": 6, "n_head": 12, "n_embd": 768, "vocab_size": 50257, "n_positions": 1024},
    "gpt2_medium": {"model_type": "gpt2", "n_layer": 24, "n_head": 16, "n_embd": 1024, "vocab_size": 50257, "n_positions": 1024},
    "flan_t5_base": {"model_type": "t5", "d_model": 768, "d_kv": 64, "d_ff": 2048, "num_layers": 12, "num_decoder_layers": 12,
                     "num_heads": 12, "vocab_size": 32128, "feed_forward_proj": "gated-gelu"},
    "flan_t5_large": {"model_type": "t5", "d_model": 1024, "d_kv": 64, "d_ff": 2816, "num_layers": 24, "num_decoder_layers": 24,
                      "num_heads": 16, "vocab_size": 32128, "feed_forward_proj": "gated-gelu"},
    "gemma_2b_it": {"model_type": "gemma", "hidden_size": 2048, "intermediate_size": 16384, "num_hidden_layers": 18,
                    "num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 256, "vocab_size": 256000, "max_position_embeddings": 8192},
    "tinyllama_1_1b_chat": {"model_type": "llama", "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22,
                            "num_attention_heads": 32, "num_key_value_heads": 4, "vocab_size": 32000, "max_position_embeddings": 2048,
                            "tie_word_embeddings": False},
}  # fmt: skip
# FLAN-T5's files hold a head of their own (transformers 5 builds a tied one from their config): as many weights more.
OWN_HEAD = {"flan_t5_base": 32128 * 768, "flan_t5_large": 32128 * 1024}
# Of the backbone; published, on the models' pages or by their authors.
TOTAL = {
    "distilgpt2": 81_912_576,
    "gpt2_medium": 354_823_168,
    "flan_t5_base": 247_577_856,
    "flan_t5_large": 783_150_080,
    "gemma_2b_it": 2_506_172_416,
    "tinyllama_1_1b_chat": 1_100_048_384,
}
# LoRA adds r x (inputs + outputs) to each layer that it stands beside.
T5_LARGE = 8 * (1024 + 1024) * 2 * (24 + 24 + 24)  # q and v of 24 encoder, 24 decoder and 24 cross attentions
TRAINABLE = {
    "academic_distilgpt2": TOTAL["distilgpt2"],
    "academic_flan_t5_base": TOTAL["flan_t5_base"],
    "alpaca_gpt2_medium": TOTAL["gpt2_medium"],
    "openorca_flan_t5_large_qlora": T5_LARGE,
    "openorca_flan_t5_large_8bit": T5_LARGE,
    "psychology_gemma_2b_qlora": 19_611_648,  # published
    "keyword_tinyllama_qlora": 22 * 16 * ((2048 + 2048) + 2 * (2048 + 256) + (2048 + 2048)),
}
SETTINGS = {
    "academic_flan_t5_base": {
        "data.max_prompt_tokens": 256, "data.max_answer_tokens": 128, "data.batch_size": 8, "optim.lr": 3e-5, "scheduler.name": "linear",
        "scheduler.warmup_steps": 0.1, "callbacks.gradient_clipping.max_norm": 1.0, "trainer.max_epochs": 6, "trainer.precision": "32-true",
        "data.split.val": 0.1, "seed": 42, "generation.num_beams": 4, "generation.repetition_penalty": 1.3,
        "generation.no_repeat_ngram_size": 3, "peft.method": "none", "optim._target_": "torch.optim.AdamW",
    },
    "alpaca_gpt2_medium": {
        "optim.lr": 5e-5, "optim.weight_decay": 0.1, "data.batch_size": 8, "trainer.max_epochs": 1, "seed": 123, "data.split.val": 0.05,
        "data.split.test": 0.1, "data.split_by": "position", "data.train_on": "answer", "generation.max_new_tokens": 256,
        "generation.num_beams": 1, "generation.do_sample": False, "evaluate.response_file": "instruction-data-with-response.json",
        "evaluate.rows": None, "peft.method": "none", "data.prompt": "alpaca",
    },
    "openorca_flan_t5_large_qlora": {
        "peft.r": 8, "peft.alpha": 16, "peft.dropout": 0.05, "model.lora_targets": ["q", "v"], "peft.targets": "auto", "peft.quantise": "nf4",
        "optim.lr": 8e-5, "data.batch_size": 16, "data.limit": 75000, "trainer.max_epochs": 3, "scheduler.name": "plateau",
        "scheduler.factor": 0.8, "scheduler.patience": 750, "data.max_prompt_tokens": 512, "data.max_answer_tokens": 512,
    },
    "openorca_flan_t5_large_8bit": {
        "peft.r": 8, "peft.alpha": 16, "peft.dropout": 0.05, "peft.quantise": "int8", "optim.lr": 8e-5, "data.batch_size": 16,
        "scheduler.name": "plateau", "data.limit": 75000, "model.name": "flan_t5_large",
    },
    "psychology_gemma_2b_qlora": {
        "peft.quantise": "nf4", "peft.double_quant": True, "peft.r": 16, "peft.alpha": 32, "peft.dropout": 0.05, "peft.targets": "all-linear",
        "optim.lr": 2e-4, "optim.paged": True, "scheduler.warmup_steps": 10, "data.batch_size": 1, "trainer.accumulate_grad_batches": 2,
        "data.batching": "grouped", "trainer.max_epochs": 1, "trainer.val_check_interval": 2 * 200,
    },
    "keyword_tinyllama_qlora": {
        "peft.quantise": "nf4", "peft.r": 16, "peft.alpha": 32, "model.lora_targets": ["q_proj", "k_proj", "v_proj", "o_proj"],
        "peft.targets": "auto", "optim.lr": 2e-4, "data.batch_size": 1, "trainer.accumulate_grad_batches": 4, "trainer.max_epochs": 5,
    },
}  # fmt: skip
HERE = ("optim.fallback=true",)  # no CUDA GPU in a test


def experiment(name, load):
    return load(f"experiment={name}", *(HERE if name == "psychology_gemma_2b_qlora" else ()))


def test_these_are_the_experiments():
    found = {file.stem for file in (conf_dir() / "experiment").glob("*.yaml")}
    assert found == {*TRAINABLE, "compare_families", "learning_curve", "none", "support"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name.endswith("8bit") else []) for name in TRAINABLE]
)
def test_an_experiment_trains_what_was_published(name, load):

    cfg = check(experiment(name, load), TrainConfig)
    published = SETTINGS.get(name, {})
    assert {key: cfg.select(key) for key in published} == published
    numbers = dict(ARCHITECTURES[cfg.model.name])
    config = AutoConfig.for_model(numbers.pop("model_type"), **numbers)
    auto_class = get_class(cfg.model.target).auto_class
    with torch.device("meta"):
        model = auto_class.from_config(config)
        own_head = OWN_HEAD.get(cfg.model.name, 0)
        assert sum(p.numel() for p in model.parameters()) + own_head == TOTAL[cfg.model.name]
        if own_head:
            model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.lm_head.weight))
        if trainable.is_adapter(cfg.peft):
            assert set(cfg.model.lora_targets) <= set(lora.targets(model, "all-linear", []))
        adapted = trainable.adapt(model, cfg.peft, cfg.model.lora_targets)
    counts = trainable.parameter_counts(adapted)
    added = TRAINABLE[name] if trainable.is_adapter(cfg.peft) else 0
    assert counts == {"total": TOTAL[cfg.model.name] + added, "trainable": TRAINABLE[name]}
    architecture_check.check_positions(config, cfg)  # prompts and answers fit


def test_the_published_curve_is_placed_by_the_runs_own_epochs(load):
    path = experiment("academic_flan_t5_base", load).report.reference_curve
    published = curves.reference_curve(path, steps_per_epoch=45)["val/loss"]
    assert published.steps == [45, 90, 135, 180, 225, 270]
    assert published.values == [2.9902, 2.8599, 2.7987, 2.7623, 2.7407, 2.7353]


@pytest.mark.slow
def test_compare_families_ends_with_a_table(llmft, tmp_path):
    small = (
        "trainer.max_steps=2",
        "evaluate.rows=2",
        "generation.max_new_tokens=4",
        "data.limit=20",
        "report.write=false",
    )
    code, out, err = llmft("-m", "experiment=compare_families", *small, "output_dir=all")
    assert code == 0, err
    assert "4 jobs in all" in out
    rows = list(csv.DictReader((tmp_path / "all" / "leaderboard.csv").open()))
    assert {(row["model"], row["peft"]) for row in rows} == {(m, p) for m in ("tiny_llama", "tiny_t5") for p in ("none", "lora")}  # fmt: skip
    losses = [float(row["val/loss"]) for row in rows]
    assert losses == sorted(losses)
    for row in rows:
        record = json.loads((tmp_path / "all" / row["run"] / "run.json").read_text())
        assert float(row["val/loss"]) == pytest.approx(record["objective"], rel=1e-3)
        assert float(row["val/loss before"]) == pytest.approx(record["metrics"]["before"]["val/loss"], rel=1e-3)
        assert (float(row["trained %"]) == 100) == (row["peft"] == "none")
        assert float(row["tokens/s"].replace(",", "")) > 0
        assert float(row["peak MiB"].replace(",", "")) > 100


@pytest.mark.slow
def test_peak_memory_can_be_forgotten():
    from llmft.utils.memory import CLEAR_REFS, peak_memory_mib, reset_peak_memory

    if not CLEAR_REFS.exists():
        pytest.skip("only Linux can")
    held = torch.ones(60 * 2**20)
    with_it = peak_memory_mib()["cpu"]
    assert held.sum() > 0
    del held
    assert peak_memory_mib()["cpu"] >= with_it
    reset_peak_memory()
    assert peak_memory_mib()["cpu"] < with_it - 150
