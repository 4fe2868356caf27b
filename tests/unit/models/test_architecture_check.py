"""Faults of a config that need the model's config or tokenizer, and not its weights."""

from typing import Any

import pytest

from llmft.config.schema import TrainConfig
from llmft.config.validate import check
from llmft.models.architecture_check import (
    architecture_faults,
    check_architecture,
    check_config,
)
from llmft.models.backbone import load as backbone
from llmft.models.kernel_check import check_compile, check_flash, check_flex, check_liger
from llmft.utils.errors import UserError


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("generation.max_new_tokens=4000", "data.max_prompt_tokens=512 + generation.max_new_tokens=4000 = 4512 tokens"),
        ("callbacks.samples.max_new_tokens=4000", "callbacks.samples.max_new_tokens=4000 = 4512 tokens"),
        (
            "peft.targets=[lm_head]",
            "peft.targets: lm_head is a layer of this model, but LoRA of the head is not supported; "
            "peft=head trains the head itself, and LoRA can have c_attn, c_fc, c_proj",
        ),
        ("model.lora_targets=[q_proj]", "model.lora_targets: q_proj match no layer of this model"),
        ("model.path=./nowhere/model", "model.path=./nowhere/model: no such folder"),
        ("+generation.temperature=0.5", "generation: "),
        ("+generation.foo=1", "generation.foo: transformers' GenerationConfig has no such setting"),
    ],
)
def test_faults_of_the_architecture_are_found_without_weights(override, message, load, monkeypatch):
    monkeypatch.setattr(backbone, "load_model", None)
    with pytest.raises(UserError) as error:
        check(load("model=tiny_gpt2", override), TrainConfig, architecture=architecture_faults)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            "data.max_prompt_tokens=4000 callbacks.samples.number=0",
            "data.max_prompt_tokens=4000 + data.max_answer_tokens=512 = 4512 tokens, + generation.max_new_tokens=180 = 4180 tokens, "
            "but the model has 4096 positions; lower them: data.max_prompt_tokens=2048",
        ),
        (
            "data.max_prompt_tokens=3000 data.max_answer_tokens=3000 questions=0 evaluate.rows=0 callbacks.samples.number=0",
            "data.max_prompt_tokens=3000 + data.max_answer_tokens=3000 = 6000 tokens, but the model has 4096 positions; "
            "lower them: data.max_prompt_tokens=2048 data.max_answer_tokens=2048",
        ),
    ],
)
def test_all_budgets_that_a_run_uses_come_in_one_message_with_the_way_out(overrides, message, load_config):
    cfg = load_config("model=tiny_gpt2", *overrides.split())
    (fault,) = architecture_faults(cfg)
    assert fault == message
    lower = message.partition("lower them: ")[2]
    assert architecture_faults(load_config("model=tiny_gpt2", *overrides.split(), *lower.split())) == []


def test_a_budget_of_answers_that_nobody_generates_is_not_checked(load_config):
    nothing = ("questions=0", "evaluate.rows=0", "callbacks.samples.number=0")
    assert architecture_faults(load_config("model=tiny_gpt2", "generation.max_new_tokens=9000", *nothing)) == []


@pytest.mark.parametrize("model", ["tiny_t5", "tiny_gpt2", "tiny_llama", "gemma_2b_it", "flan_t5_xl", "gpt2_medium"])
def test_a_right_model_has_no_faults_and_one_that_is_not_here_is_not_fetched(model, load):
    check(load(f"model={model}"), TrainConfig, architecture=architecture_faults)


@pytest.mark.parametrize(
    ("model", "config", "said"),
    [
        (
            "gpt2",
            "BloomConfig",
            "data.batching=packed: BloomForCausalLM has no positions that could restart in each example",
        ),
        ("flan_t5_small", "LongT5Config", "data.batching=packed: LongT5ForConditionalGeneration attends in blocks"),
        ("flan_t5_small", "T5GemmaConfig", "data.batching=packed: T5GemmaForConditionalGeneration has no positions"),
        ("gpt2", "GPT2Config", ""),
        ("flan_t5_small", "T5Config", ""),
        ("flan_t5_small", "BartConfig", ""),
    ],
)
def test_a_model_that_cannot_pack_is_found_without_weights(model, config, said, load, tmp_path):
    import transformers

    getattr(transformers, config)().save_pretrained(tmp_path)
    cfg = load(f"model={model}", f"model.path={tmp_path}", "data.batching=packed", "peft=none", "prompt=plain")
    if said:
        with pytest.raises(UserError, match=said):
            check(cfg, TrainConfig, architecture=architecture_faults)
    else:
        check(cfg, TrainConfig, architecture=architecture_faults)


@pytest.mark.parametrize(
    ("config", "override", "said"),
    [
        ("T5Config", "trainer.precision=16-mixed", "T5 overflows in float16; use bf16-mixed or 32-true"),
        ("BartConfig", "trainer.precision=16-mixed", ""),
        (
            "BartConfig",
            "data.max_prompt_tokens=1025",
            "data.max_prompt_tokens=1025: the model's encoder has 1024 positions",
        ),
        (
            "BartConfig",
            "generation.max_new_tokens=1025",
            "generation.max_new_tokens=1025: the model's decoder has 1024",
        ),
        ("BartConfig", "data.max_prompt_tokens=1024", ""),
        ("T5Config", "data.max_prompt_tokens=100000", ""),
        ("ProphetNetConfig", "seed=1", "ProphetNetConfig is trained to predict 2 tokens ahead, with a loss of its own"),
        ("NllbMoeConfig", "seed=1", "the experts of NllbMoeConfig have a capacity"),
        ("SwitchTransformersConfig", "seed=1", "the experts of SwitchTransformersConfig have a capacity"),
    ],
)
def test_what_a_config_of_an_encoder_decoder_shows(config, override, said, load_config):
    """Of a model that was downloaded just now, before its weights are loaded."""
    import transformers

    cfg = load_config("model=flan_t5_small", "data.max_prompt_tokens=512", override)
    found = getattr(transformers, config)()
    if said:
        with pytest.raises(UserError) as error:
            check_config(found, cfg)
        assert said in str(error.value)
    else:
        check_config(found, cfg)


@pytest.mark.parametrize(
    ("overrides", "there", "said"),
    [
        (["trainer.precision=bf16-mixed"], None, ""),
        (["trainer.accelerator=cpu"], None, "runs on a CUDA GPU, and this training on a CPU; use model.attention=auto"),
        ([], "this card is too old", "model.attention=flash: this card is too old; use model.attention=auto"),
        (
            ["trainer.precision=32-true"],
            None,
            "in float32 (trainer.precision=32-true); use trainer.precision=bf16-mixed, or model.attention=auto",
        ),
    ],
)
def test_flash_attention_is_refused_where_it_cannot_run(overrides, there, said, load_config, monkeypatch):
    monkeypatch.setattr("llmft.utils.flash.unavailable", lambda: there)
    given = ["trainer.accelerator=gpu", "model.dtype=float32", "model.attention=flash", *overrides]
    cfg = load_config("model=tiny_llama", *given)
    if said:
        with pytest.raises(UserError) as error:
            check_flash(cfg)
        assert said in str(error.value)
    else:
        check_flash(cfg)


def test_an_architecture_that_auto_did_not_know_keeps_its_padding_and_says_so(load_config, monkeypatch, caplog):
    from transformers import Gemma2Config

    monkeypatch.setattr("llmft.utils.flash.unavailable", lambda: None)
    given = ["trainer.accelerator=gpu", "trainer.precision=bf16-mixed", "model.attention=flash"]
    check_config(Gemma2Config(), load_config("model=tiny_llama", *given))
    assert "model.attention=flash: not for Gemma2Config, its attention scores are capped" in caplog.text


@pytest.mark.parametrize(
    ("config", "accelerator", "there", "said"),
    [
        ("Gemma2Config", "gpu", None, ""),
        ("LlamaConfig", "cpu", None, "flex attention has no backward pass on a CPU, where this training runs; use model.attention=auto"),
        ("LlamaConfig", "gpu", "no Triton", "model.attention=flex: no Triton; use model.attention=auto"),
        ("T5Config", "gpu", None, "T5Config cannot train with it: its relative position bias"),
        ("GPT2Config", "gpu", None, "(attn_pdrop=0.1), which the kernel cannot; model.dropout=0 turns it off; or use sdpa"),
    ],
)  # fmt: skip
def test_flex_attention_is_refused_where_it_cannot_run(config, accelerator, there, said, load_config, monkeypatch):
    import transformers

    monkeypatch.setattr("llmft.utils.flex.unavailable", lambda: there)
    given = [f"trainer.accelerator={accelerator}", "trainer.precision=32-true", "model.attention=flex"]
    cfg, found = load_config("model=tiny_llama", *given), getattr(transformers, config)()
    if said:
        with pytest.raises(UserError) as error:
            check_flex(found, cfg)
        assert said in str(error.value)
    else:
        check_flex(found, cfg)


def test_flash_attention_is_refused_for_an_architecture_that_it_does_not_compute(load):
    with pytest.raises(UserError, match="T5Config cannot attend with FlashAttention: its relative position bias"):
        check(load("model=tiny_t5", "model.attention=flash"), TrainConfig, architecture=architecture_faults)


def test_weights_without_a_backward_pass_are_refused():
    from transformers import GptOssConfig

    config: Any = GptOssConfig()
    check_architecture(config)
    config.quantization_config = {"quant_method": "mxfp4"}
    with pytest.raises(UserError, match="its weights are in MXFP4, whose kernels have no backward pass"):
        check_architecture(config)


def test_liger_is_refused_where_it_cannot_run(load_config, monkeypatch):
    monkeypatch.setattr("llmft.utils.liger.find_spec", lambda _: None)
    cfg = load_config("model.liger=true")
    with pytest.raises(
        UserError, match=r"model.liger=true: runs on a CUDA GPU, and this training does not; use model.liger=auto"
    ):
        check_liger(cfg)
    there = cfg.replaced({"trainer.accelerator": "gpu"})
    with pytest.raises(
        UserError, match=r"liger-kernel is not installed \(pip install 'llmft\[liger\]'\); or use model.liger=auto"
    ):
        check_liger(there)
    monkeypatch.setattr("llmft.utils.liger.find_spec", lambda _: True)
    monkeypatch.setattr("torch.version.hip", None)
    check_liger(there)
    check_liger(load_config())


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("trainer=fsdp", "model.liger=true: Liger's kernels were not tried on sharded weights"),
        ("performance=plain", "model.liger=true: performance=plain computes as transformers does"),
    ],
)
def test_liger_is_refused_beside_what_it_does_not_fit(override, said, load):
    with pytest.raises(UserError, match=said):
        check(load("model=tiny_llama", "model.liger=true", override), TrainConfig)


@pytest.mark.parametrize(
    ("missing", "device", "said"),
    [
        ("g++", "cpu", r"needs the compiler g\+\+, which is not on the PATH \(apt-get install g\+\+\)"),
        ("triton", "cuda", r"Triton, which torch.compile needs on a GPU, is not installed \(pip install triton\)"),
        ("gcc", "cuda", "needs the compiler gcc or clang"),
        ("Python.h", "cpu", r"needs Python.h, the header of Python \(apt-get install python3-dev\)"),
        ("nothing", "mps", "was not tried on an Apple GPU"),
    ],
)
def test_compile_is_refused_where_something_is_missing(missing, device, said, load_config, monkeypatch, tmp_path):
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("shutil.which", lambda name: None if missing in ("g++", "gcc") else name)
    monkeypatch.setattr("llmft.utils.torch_compile.find_spec", lambda _: None if missing == "triton" else True)
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path))
    if missing != "Python.h":
        (tmp_path / "Python.h").touch()
    cfg = load_config("model.compile=true").replaced({"trainer.accelerator": device})
    with pytest.raises(UserError, match=rf"^model.compile=true: .*{said}.*; or use model.compile=false"):
        check_compile(cfg)
    check_compile(cfg.replaced({"model.compile": False}))


def test_compile_runs_where_nothing_is_missing(load_config, monkeypatch, tmp_path):
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr("shutil.which", lambda name: name)
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path))
    check_compile(load_config("model.compile=true", "trainer.accelerator=cpu"))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.attention=flex", "model.compile=true: model.attention=flex compiles itself"),
        ("trainer=fsdp", "model.compile=true: compiled layers were not tried on sharded weights"),
        ("performance=plain", "model.compile=true: performance=plain computes as transformers does"),
    ],
)
def test_compile_is_refused_beside_what_it_does_not_fit(override, said, load):
    with pytest.raises(UserError, match=said):
        check(load("model=tiny_llama", "model.compile=true", override), TrainConfig)
