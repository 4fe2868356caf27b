"""What `auto` becomes, by config and machine."""

import pytest

from llmft.config import auto_values
from llmft.utils import device
from llmft.utils.errors import UserError

KEYS = ("model.dtype", "model.attention", "optim.fused", "model.padding", "model.shared_prefix")


def settled(load_config, *overrides):
    cfg, choices = auto_values.resolve_auto(load_config("model=smollm2_135m", *overrides))
    assert all(choice.why for choice in choices)
    assert all(cfg.select(choice.key) == choice.value for choice in choices)
    return [cfg.select(key) for key in KEYS]


@pytest.fixture
def units(monkeypatch):
    def have(words):
        monkeypatch.setattr(auto_values, "bfloat16_units", lambda **_: words)

    have("it has units")
    return have


def test_a_frozen_base_is_held_in_bfloat16_where_that_is_multiplied_in_hardware(load_config, units):
    assert settled(load_config, "peft=lora") == ["bfloat16", "by_length", True, "skipped", "exact"]
    units(None)
    assert settled(load_config, "peft=lora") == ["float32", "sdpa", True, "skipped", "exact"]


@pytest.mark.usefixtures("units")
@pytest.mark.parametrize(
    "overrides",
    [
        ["peft=none"],
        ["peft=head"],
        ["peft=qlora"],
        ["peft=lora", "model.new_tokens=[kw]"],
    ],
)
def test_what_would_lose_updates_or_cannot_be_half_stays_float32(load_config, overrides):
    assert settled(load_config, *overrides)[0] == "float32"


@pytest.mark.usefixtures("units")
def test_full_fine_tuning_says_what_would_be_faster(load_config):
    cfg = load_config("model=smollm2_135m", "peft=none")
    (dtype, *_) = auto_values.auto_choices(cfg)
    assert "trainer.precision=bf16-mixed is faster, it has units" in dtype.why


@pytest.mark.usefixtures("units")
def test_autocast_chooses_attention_as_bfloat16_weights_do(load_config):
    assert settled(load_config, "peft=none", "trainer.precision=bf16-mixed")[1] == "by_length"


@pytest.mark.usefixtures("units")
def test_a_layer_that_runs_twice_runs_alike(load_config):
    assert settled(load_config, "peft=lora", "model.gradient_checkpointing=true") == [
        "bfloat16",
        "sdpa",
        True,
        "kept",
        "off",
    ]


@pytest.mark.parametrize(
    "why",
    [
        "trainer=fsdp",
        "model.attention=eager",
        "peft.distill_from=tiny_gpt2",
        "trainer.accelerator=gpu model.attention=sdpa",
    ],
)
def test_padding_is_kept_where_rows_cannot_be_taken_one_by_one(load_config, why, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda *_: True)
    assert settled(load_config, "peft=lora", *why.split())[3:] == ["kept", "off"]


GPU = ("trainer.accelerator=gpu", "trainer.precision=bf16-mixed")


@pytest.mark.usefixtures("units")
@pytest.mark.parametrize(
    ("more", "fused"),
    [
        ([], True),
        (["model.gradient_checkpointing=true"], True),
        (["trainer.precision=16-mixed"], False),
        (["trainer=fsdp", "trainer.accelerator=gpu"], False),
    ],
)
def test_a_gpu_attends_by_example(load_config, more, fused):
    assert settled(load_config, "peft=lora", *GPU, *more)[1:] == [
        "flash",
        fused,
        "skipped",
        "off",
    ]


@pytest.mark.usefixtures("units")
def test_flex_attention_takes_batches_without_padding_in_float32_too(load_config):
    given = ["trainer.accelerator=gpu", "trainer.precision=32-true", "model.dtype=float32", "model.attention=flex"]
    choices = {c.key: c.value for c in auto_values.auto_choices(load_config("peft=lora", *given))}
    assert (choices["model.padding"], choices["model.shared_prefix"]) == ("skipped", "off")


@pytest.mark.usefixtures("units")
@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["model.padding=kept"], "model.padding=kept"),
        (["trainer.precision=32-true", "model.dtype=float32"], "it computes in half precision"),
        (["model=tiny_t5", "trainer=fsdp", "trainer.accelerator=gpu"], "trainer=fsdp needs the same module calls"),
        (["peft.distill_from=tiny_gpt2"], "teacher and student run on the same padded batch"),
        (["model=tiny_t5"], "its relative position bias"),
    ],
)
def test_a_gpu_that_cannot_attend_by_example_keeps_padding_and_says_why(load_config, more, why):
    choices = {c.key: c for c in auto_values.auto_choices(load_config("model=smollm2_135m", "peft=lora", *GPU, *more))}
    assert choices["model.attention"].value == "sdpa"
    assert why in choices["model.attention"].why
    assert "model.padding=kept" in more or choices["model.padding"].value == "kept"


@pytest.mark.usefixtures("units")
def test_a_gpu_without_the_kernel_says_so(load_config, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("llmft.utils.flash.unavailable", lambda: "this card is too old")
    choices = {c.key: c for c in auto_values.auto_choices(load_config("model=smollm2_135m", "peft=lora", *GPU))}
    assert choices["model.attention"].why.endswith("this card is too old")


@pytest.mark.parametrize(
    ("overrides", "value", "why"),
    [
        (["peft.dropout=0"], "exact", "common prefixes of a batch are computed once"),
        (
            ["peft.dropout=0.05"],
            "exact",
            "in validation only: each example has its own dropout mask (peft.dropout=0.05)",
        ),
        (["model.padding=kept"], "off", "padding is kept"),
        (["performance=plain"], "off", "performance=plain"),
    ],
)
def test_a_shared_prefix_says_where_it_is_used(load_config, overrides, value, why):
    choices = auto_values.auto_choices(load_config("model=smollm2_135m", "peft=lora", *overrides))
    (choice,) = (choice for choice in choices if choice.key == "model.shared_prefix")
    assert choice.value == value
    assert choice.why.endswith(why)


@pytest.mark.usefixtures("units")
def test_plain_and_the_users_own_values(load_config):
    assert settled(load_config, "peft=lora", "performance=plain") == ["float32", "sdpa", False, "kept", "off"]
    given = ["model.dtype=bfloat16", "model.attention=eager", "optim.fused=false"]
    assert settled(load_config, "peft=lora", *given) == ["bfloat16", "eager", False, "kept", "off"]
    assert settled(load_config, "peft=lora", "performance=plain", *given) == ["bfloat16", "eager", False, "kept", "off"]


@pytest.mark.usefixtures("units")
def test_the_users_own_type_decides_attention_too(load_config):
    assert settled(load_config, "peft=lora", "model.dtype=float32") == ["float32", "sdpa", True, "skipped", "exact"]


@pytest.mark.usefixtures("units")
def test_settling_twice_changes_nothing(load_config):
    cfg, choices = auto_values.resolve_auto(load_config("model=smollm2_135m", "peft=lora"))
    assert choices
    assert auto_values.resolve_auto(cfg) == (cfg, [])


GPUS = {
    "ampere": (True, True, False),
    "turing": (True, False, False),
    "apple": (False, False, True),
    "none": (False, False, False),
}


@pytest.fixture
def machine(monkeypatch):
    def has(gpu):
        cuda, bfloat16, mps = GPUS[gpu]
        monkeypatch.setattr("torch.cuda.is_available", lambda: cuda)
        monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda *_: bfloat16)
        monkeypatch.setattr("torch.cuda.get_device_name", lambda *_: "Tesla T4")
        monkeypatch.setattr("torch.cuda.get_device_capability", lambda *_: (8, 0) if bfloat16 else (7, 5))
        monkeypatch.setattr("torch.backends.mps.is_available", lambda: mps)
        monkeypatch.delenv("DISABLE_MPS", raising=False)

    return has


@pytest.mark.parametrize(
    ("gpu", "overrides", "precision", "computes", "dtype"),
    [
        ("ampere", "peft=qlora", "bf16-mixed", "bfloat16", "bfloat16"),
        ("ampere", "peft=none", "bf16-mixed", None, "float32"),
        ("ampere", "peft=lora", "bf16-mixed", "float32", "bfloat16"),
        ("ampere", "peft=lora_8bit", "bf16-mixed", "float32", "bfloat16"),
        ("ampere", "peft=qlora model.new_tokens=[kw]", "bf16-mixed", "bfloat16", "float32"),
        ("ampere", "peft=qlora evaluate.dtype=float32", "bf16-mixed", "float32", "bfloat16"),
        ("ampere", "peft=qlora trainer.precision=32-true", "32-true", "bfloat16", "bfloat16"),
        ("ampere", "peft=qlora trainer.precision=16-mixed", "16-mixed", "float16", "float32"),
        ("ampere", "peft=qlora peft.compute_dtype=float32", "bf16-mixed", "float32", "bfloat16"),
        ("ampere", "peft=qlora trainer=cpu", "32-true", "float32", "float32"),
        ("ampere", "peft=qlora performance=plain", "32-true", "float32", "float32"),
        ("turing", "peft=qlora", "32-true", "float16", "float32"),
        ("turing", "peft=qlora model=tiny_t5", "32-true", "float32", "float32"),
        ("turing", "peft=none", "32-true", None, "float32"),
        ("apple", "peft=none", "32-true", None, "float32"),
        ("apple", "peft=none trainer=gpu", "32-true", None, "float32"),
        ("none", "peft=none trainer=gpu", "bf16-mixed", None, "float32"),  # `estimate` of a training elsewhere
        ("none", "peft=none trainer=ddp", "32-true", None, "float32"),
    ],
)
def test_precision_by_machine(load_config, machine, monkeypatch, gpu, overrides, precision, computes, dtype):
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: False)
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: False, raising=False)
    machine(gpu)
    cfg, choices = auto_values.resolve_auto(load_config("model=smollm2_135m", *overrides.split()))
    found = (cfg.trainer.precision, cfg.select("peft.compute_dtype"), cfg.model.dtype)
    assert found == (precision, computes, dtype)
    assert all(choice.why for choice in choices)


@pytest.mark.parametrize(
    ("gpu", "overrides", "brief", "words"),
    [
        ("ampere", [], False, "bfloat16: this GPU multiplies it in hardware; trainer.precision=32-true computes in float32"),
        ("turing", [], False, "this GPU has no bfloat16 matrix units; trainer.precision=16-mixed computes in float16"),
        ("turing", ["model=tiny_t5"], False, "this GPU has no bfloat16 matrix units; trainer.precision=16-mixed computes in "
                                             "float16 (not for T5, which overflows)"),
        ("apple", [], False, "on an Apple GPU; trainer.precision=16-mixed computes in float16"),
        ("none", [], True, "on a CPU; bf16-mixed only where it is asked for"),
    ],
)  # fmt: skip
def test_the_choice_of_precision_says_how_to_change_it(load_config, machine, gpu, overrides, brief, words):
    machine(gpu)
    choices = auto_values.auto_choices(load_config("model=smollm2_135m", *overrides))
    (choice,) = (choice for choice in choices if choice.key == "trainer.precision")
    assert (choice.brief, choice.why) == (brief, words)


def test_this_machine_says_what_it_has_or_nothing():
    assert device.bfloat16_units(gpu=False) in (
        None,
        "this CPU multiplies it in hardware, by AMX",
        "this CPU multiplies it in hardware, by AVX512-BF16",
    )


@pytest.mark.usefixtures("units")
@pytest.mark.parametrize(
    ("more", "installed", "value", "why"),
    [
        ([*GPU], None, True, "RMSNorm and gated MLPs in one kernel each (Liger), in training steps"),
        ([*GPU], "liger-kernel is not installed", False, "Liger's kernels: liger-kernel is not installed"),
        ([*GPU, "trainer.deterministic=true"], None, False, "torch cannot check the kernels of another package"),
        (["trainer=fsdp", *GPU], None, False, "were not tried on sharded weights"),
        ([*GPU, "performance=plain"], None, False, "performance=plain"),
        ([], None, False, "run on a CUDA GPU"),
    ],
)
def test_liger_is_taken_on_a_gpu_that_has_it(load_config, more, installed, value, why, monkeypatch):
    monkeypatch.setattr("llmft.utils.liger.unavailable", lambda: installed)
    choices = {c.key: c for c in auto_values.auto_choices(load_config("model=smollm2_135m", "peft=lora", *more))}
    assert choices["model.liger"].value is value
    assert why in choices["model.liger"].why


@pytest.mark.usefixtures("units")
@pytest.mark.parametrize(
    ("override", "why"),
    [
        ("model.gradient_checkpointing=true", "gradient checkpointing must recompute a layer with the same kernel"),
        ("model.attention=eager", "model.attention=eager keeps the computation of transformers"),
    ],
)
def test_what_was_asked_for_and_what_auto_chose_must_fit(load_config, override, why):
    cfg = load_config("model=smollm2_135m", "model.shared_prefix=always", override)
    with pytest.raises(UserError, match=r"only an unpadded batch has one; .* auto chose model.padding=kept") as caught:
        auto_values.resolve_auto(cfg)
    assert why in str(caught.value)
