"""Dropout acts while training and only then; gradient checkpointing keeps less; trainable weights are float32."""

import pytest
import torch

from llmft.data.batching.collate import training_batch
from llmft.models.backbone.open import Backbone

MODELS = ("tiny_t5", "tiny_gpt2", "tiny_llama", "tiny_gemma")
RUN = ("data=alpaca", "data.path=sample", "data.limit=20", "trainer.max_steps=2", "questions=0", "evaluate.rows=0", "report.write=false", "callbacks.samples.number=1",
       "callbacks.samples.max_new_tokens=4", "trainer.val_check_interval=1", "logger=none")  # fmt: skip


@pytest.mark.parametrize(("model", "peft"), [("tiny_t5", "none"), ("tiny_gpt2", "lora"), ("tiny_llama", "lora")])
def test_every_module_trains_in_train_mode_and_validates_in_eval_mode(model, peft, llmft, monkeypatch):
    from llmft.models.module import InstructionModule

    modes = []
    for name in ("training_step", "validation_step"):
        real = getattr(InstructionModule, name)

        def watch(self, batch, batch_idx, name=name, real=real):
            modes.append((name, {module.training for module in self.modules()}))
            return real(self, batch, batch_idx)

        monkeypatch.setattr(InstructionModule, name, watch)
    assert llmft(f"model={model}", f"peft={peft}", *RUN, "output_dir=run")[0] == 0
    assert [mode for name, mode in modes if name == "training_step"] == [{True}] * 2
    assert {False} in [mode for name, mode in modes if name == "validation_step"]
    assert all(mode == {False} for name, mode in modes if name == "validation_step")


@pytest.mark.parametrize("model", MODELS)
def test_dropout_acts(model, built):
    data, module = built(
        f"model={model}", "peft=none", "model.dropout=0.2", "data=alpaca", "data.path=sample", "data.limit=8"
    )
    batch = training_batch([[row] for row in data.encoded["train"][:2]], data.pad_id)
    module.on_fit_start()
    assert module.forward_pass.loss_sum(batch)[0] != module.forward_pass.loss_sum(batch)[0]
    module.eval()
    assert module.forward_pass.loss_sum(batch)[0] == module.forward_pass.loss_sum(batch)[0]


def kept(module, batch):
    """Bytes that the forward keeps for the backward."""
    tensors = {}

    def pack(tensor):
        tensors[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        total, _ = module.forward_pass.loss_sum(batch)
    total.backward()
    gradients = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    return sum(tensors.values()), gradients


PLAIN = [(model, peft) for peft in ("none", "lora") for model in MODELS]
MORE = [(model, peft) for peft in ("dora", "rslora", "fp4", "lora_8bit", "unfreeze") for model in MODELS]
MORE += [("tiny_t5", "qlora"), ("tiny_gpt2", "qlora"), ("tiny_gemma", "qlora")]


@pytest.mark.parametrize(
    ("model", "peft"),
    [*PLAIN, ("tiny_llama", "qlora"), *(pytest.param(*case, marks=pytest.mark.slow) for case in MORE)],
)
def test_gradient_checkpointing_keeps_less_and_changes_no_gradient(model, peft, built):
    common = (f"model={model}", f"peft={peft}", "data=alpaca", "data.path=sample", "data.limit=8", "model.dropout=0")
    common = common if peft in ("none", "unfreeze") else (*common, "peft.dropout=0")
    results = []
    for switch in ("false", "true"):
        data, module = built(*common, f"model.gradient_checkpointing={switch}")
        module.on_fit_start()
        batch = training_batch([[row] for row in data.encoded["train"][:4]], data.pad_id)
        results.append(kept(module, batch))
    (plain, expected), (checkpointed, gradients) = results
    assert checkpointed < 0.7 * plain
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        near = 1e-5 * max(1.0, float(expected[name].abs().max()))
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=near, msg=name)


@pytest.mark.parametrize("model", [pytest.param("tiny_t5", marks=pytest.mark.slow), "tiny_gpt2"])
def test_a_bf16_checkpoint_is_trained_in_float32(model, load_config, llmft, tmp_path):
    """In bfloat16 an update of 1e-5 to a weight near 1 is rounded away."""
    from safetensors.torch import load_file

    backbone = Backbone(load_config(f"model={model}").model)
    folder = tmp_path / "bf16"
    small = backbone.family.auto_class.from_pretrained(backbone.path, dtype=torch.bfloat16)
    small.save_pretrained(folder)
    backbone.tokenizer.save_pretrained(folder)
    code, _, err = llmft(f"model={model}", f"model.path={folder}", "peft=none", "data=alpaca", "data.path=sample", "data.limit=12", "trainer.max_steps=3",
                         "optim.lr=1e-5", "scheduler=constant", "questions=0", "evaluate.rows=0", "report.write=false", "callbacks.samples.number=0", "baseline=false",
                         "data.split={val: 0, test: 0}", "trainer.max_epochs=-1", "optim.weight_decay=0", "output_dir=run")  # fmt: skip
    assert code == 0, err
    before, after = load_file(folder / "model.safetensors"), load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert {tensor.dtype for tensor in after.values()} == {torch.float32}
    matrices = [
        name
        for name in before
        if name in after and before[name].ndim == 2 and "wte" not in name and "wpe" not in name and "shared" not in name
    ]
    assert len(matrices) > 5
    changed = sum(int((after[name] != before[name].float()).sum()) for name in matrices)
    assert changed > 0.99 * sum(before[name].numel() for name in matrices)
