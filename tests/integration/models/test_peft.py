"""What is trained: how many weights of which layers, by hand; adapters that are trained on; unfreezing from the top."""

import json
import os

import pytest
import torch

from llmft.data.batching.collate import training_batch
from llmft.models.architecture_check import architecture_faults
from llmft.models.peft import layer_groups, trainable
from llmft.utils.errors import UserError
from tests.conftest import composed, typed_config

RUN = ("data=alpaca", "data.path=sample", "data.limit=8")
# tiny_llama: hidden 64, 192 between, 4 heads of 16 and 2 of them for keys and values; 2 blocks, 259 tokens, a head of its own
ATTENTION = {"q": 64 + 64, "k": 64 + 32, "v": 64 + 32, "o": 64 + 64}
BETWEEN = 3 * (64 + 192)
BLOCK = 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 192 + 2 * 64
LLAMA = 2 * 259 * 64 + 2 * BLOCK + 64
TRAINED = {
    "peft=none": LLAMA,
    "peft=lora": 2 * 16 * sum(ATTENTION.values()),
    "peft=rslora peft.r=3": 2 * 3 * sum(ATTENTION.values()),
    "peft=lora peft.targets=[v_proj]": 2 * 16 * ATTENTION["v"],
    "peft=qlora peft.targets=all-linear": 2 * 16 * (sum(ATTENTION.values()) + BETWEEN),
    "peft=dora": 2 * (16 * sum(ATTENTION.values()) + 64 + 32 + 32 + 64),  # and a magnitude for each output
    "peft=head": 259 * 64,
    "peft=unfreeze": LLAMA,
}


@pytest.mark.parametrize("overrides", TRAINED)
def test_number_of_trainable_parameters(overrides, built):
    _, module = built("model=tiny_llama", *overrides.split(), *RUN)
    counts = trainable.parameter_counts(module.model)
    added = 0 if "head" in overrides or "unfreeze" in overrides or "none" in overrides else TRAINED[overrides]
    assert counts == {"total": LLAMA + added, "trainable": TRAINED[overrides]}


def test_rslora_scales_by_the_root_of_the_rank(built):
    def scale(peft):
        module = built("model=tiny_gpt2", f"peft={peft}", "peft.r=16", "peft.alpha=32", *RUN)[1]
        return next(m.scaling["default"] for m in module.modules() if hasattr(m, "lora_A"))

    assert scale("lora") == 2.0
    assert scale("rslora") == 8.0


@pytest.mark.parametrize("model", ["tiny_t5", "tiny_gpt2", "tiny_llama", "tiny_gemma"])
def test_only_the_head_is_trained(model, built):
    data, module = built(f"model={model}", "peft=head", *RUN)
    head = module.model.get_output_embeddings().weight
    assert [id(p) for p in module.parameters() if p.requires_grad] == [id(head)]
    total, _ = module.forward_pass.loss_sum(training_batch([[data.encoded["train"][0]]], data.pad_id))
    total.backward()
    assert head.grad.any()
    assert len(module.trainable_names()) == 1


@pytest.mark.parametrize("model", ["tiny_t5", "tiny_gpt2", "tiny_llama", "tiny_gemma"])
def test_unfreezing_goes_from_the_output_down(model, built):
    _, module = built(f"model={model}", "peft=unfreeze", *RUN)
    names = {id(p): name.removeprefix("model.") for name, p in module.named_parameters()}
    groups = [[names[id(p)] for p in group] for group in layer_groups.from_the_top(module.model)]
    assert sorted(name for group in groups for name in group) == sorted(names.values())
    if model == "tiny_t5":
        assert groups[0] == ["encoder.final_layer_norm.weight", "decoder.final_layer_norm.weight"]
        order = ["decoder.block.1", "decoder.block.0", "encoder.block.1", "encoder.block.0", "shared"]
    else:
        order = ["transformer.h.1", "transformer.h.0"] if model == "tiny_gpt2" else ["model.layers.1", "model.layers.0"]
        order = [*order, "transformer.w" if model == "tiny_gpt2" else "model.embed_tokens"]
        assert ("lm_head.weight" in groups[0]) == (model == "tiny_llama")  # the others' head is their embedding
    assert [all(name.startswith(start) for name in group) for group, start in zip(groups[1:], order, strict=True)] == [True] * len(order)  # fmt: skip
    assert layer_groups.upper(module.model, 1) == [
        p for group in layer_groups.from_the_top(module.model)[:2] for p in group
    ]
    assert len(layer_groups.upper(module.model, "all")) == len(names)
    assert len(layer_groups.upper(module.model, 99)) == len(names) - len(groups[-1])


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """An adapter of rank 4 on the attention of tiny_gpt2, with matrices that are not 0."""
    from llmft.models.backbone import tiny
    from llmft.models.backbone.load import load_model

    folder = tmp_path_factory.mktemp("adapter")
    tiny.build("gpt2", folder / "base")
    cfg = typed_config(composed("model=tiny_gpt2", "peft=lora", "peft.r=4", "peft.alpha=8", "peft.dropout=0"))
    model = trainable.adapt(load_model(str(folder / "base"), cfg.model), cfg.peft, ["c_attn"])
    with torch.no_grad():
        for number, (name, p) in enumerate(model.named_parameters()):
            if "lora_" in name:
                p.fill_(0.01 * number)
    model.save_pretrained(folder / "run" / "model")
    return folder / "run"


FITS = ("model=tiny_gpt2", "peft.r=4", "peft.alpha=8", *RUN)


@pytest.mark.parametrize("peft", ["lora", "qlora", "lora_8bit"])
def test_training_continues_from_an_adapter(peft, adapter, built):
    from safetensors.torch import load_file

    _, module = built(f"peft={peft}", *FITS, f"peft.adapter={adapter}")
    weights = load_file(adapter / "model" / "adapter_model.safetensors")
    found = {n.replace(".default", "").removeprefix("model."): p for n, p in module.named_parameters() if "lora" in n}
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], weights[name]) and found[name].requires_grad for name in weights)
    assert trainable.parameter_counts(module.model)["trainable"] == sum(w.numel() for w in weights.values())


@pytest.mark.parametrize(
    ("overrides", "way_out"),
    [
        ("peft.r=8", "peft.r=4"),
        ("peft.alpha=16 peft.targets=all-linear", "peft.alpha=8 'peft.targets=[c_attn]'"),
        ("peft=rslora peft.r=4 peft.alpha=8", "peft.rslora=false"),
    ],
)
def test_an_adapter_with_other_settings_is_refused_with_a_way_out(overrides, way_out, adapter, load):
    from llmft.config.schema import TrainConfig
    from llmft.config.validate import check

    with pytest.raises(UserError) as error:
        check(
            load("peft=lora", *FITS, *overrides.split(), f"peft.adapter={adapter}"),
            TrainConfig,
            architecture=architecture_faults,
        )
    assert f"was trained with other settings; to continue from it: {way_out}" in str(error.value)


@pytest.mark.parametrize("fault", ["missing", "unknown", "shape", "broken"])
def test_an_adapter_whose_weights_do_not_fit_is_refused(fault, adapter, built, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(adapter, tmp_path / "run")
    file = tmp_path / "run" / "model" / "adapter_model.safetensors"
    weights = load_file(file)
    name = next(iter(weights))
    if fault == "missing":
        weights.pop(name)
    elif fault == "unknown":
        weights["base_model.model.other.lora_A.weight"] = weights[name].clone()
    elif fault == "shape":
        weights[name] = weights[name][:2].clone()
    save_file(weights, file)
    if fault == "broken":
        file.write_bytes(b"no weights")
    with pytest.raises(UserError, match=r"peft.adapter=.*: cannot be used"):
        built("peft=lora", *FITS, f"peft.adapter={tmp_path / 'run'}")


@pytest.mark.parametrize("path", ["nowhere", "."])
def test_an_adapter_that_is_not_there(path, load):
    from llmft.config.schema import TrainConfig
    from llmft.config.validate import check

    with pytest.raises(UserError, match=f"peft.adapter={path}: no adapter there"):
        check(load("peft=lora", *FITS, f"peft.adapter={path}"), TrainConfig, architecture=architecture_faults)


def test_model_holds_no_path_of_this_machine(lora_run):
    for file in (file for file in (lora_run / "model").iterdir() if file.suffix != ".safetensors"):
        text = file.read_text(encoding="utf-8")
        assert os.environ["LLMFT_CACHE"] not in text, file.name
        assert str(lora_run.parent) not in text, file.name
    config = json.loads((lora_run / "model" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny-gpt2"
