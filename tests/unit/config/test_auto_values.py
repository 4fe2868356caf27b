"""What `auto` becomes, by config and machine."""

import pytest

from llmft.config import auto_values
from llmft.utils import device

KEYS = ("model.dtype", "model.attention", "optim.fused", "model.padding", "model.shared_prefix")


def settled(load_config, *overrides):
    cfg, choices = auto_values.resolve_auto(load_config("model=smollm2_135m", *overrides))
    assert all(choice.why for choice in choices)
    assert {choice.key: choice.value for choice in choices}.items() <= {k: cfg.select(k) for k in KEYS}.items()
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
        ["peft=lora", "trainer=fsdp"],
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
    "why", ["trainer=fsdp", "model.attention=eager", "peft.distill_from=tiny_gpt2", "trainer.accelerator=gpu"]
)
def test_padding_is_kept_where_rows_cannot_be_taken_one_by_one(load_config, why, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda *_: True)
    assert settled(load_config, "peft=lora", why)[3:] == ["kept", "off"]


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


def test_this_machine_says_what_it_has_or_nothing():
    assert device.bfloat16_units(gpu=False) in (
        None,
        "this CPU multiplies it in hardware, by AMX",
        "this CPU multiplies it in hardware, by AVX512-BF16",
    )
