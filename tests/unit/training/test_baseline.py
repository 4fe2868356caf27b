"""A fresh adapter counts as none, whatever its rank and seed; anything else that is trained counts."""

import torch

from llmft.training.baseline import _losses, _trainable
from tests.unit.models.peft.test_lora_recompute import adapted


def weights(model, part):
    return [weight for name, weight in model.named_parameters() if part in name]


def test_a_fresh_adapter_adds_zeros():
    model = adapted()
    before = _trainable(model)
    weights(model, "lora_A")[0].data += 1
    fresh = not any(weight.any() for weight in weights(model, "lora_B"))
    assert fresh == (_trainable(model) == before)
    for weight in weights(model, "lora_B"):
        weight.data.zero_()
    zero = _trainable(model)
    weights(model, "lora_A")[0].data += 1
    assert _trainable(model) == zero
    weights(model, "lora_B")[0].data += 1
    trained = _trainable(model)
    assert trained != zero
    weights(model, "lora_A")[0].data += 1
    assert _trainable(model) != trained


def test_other_trainable_weights_count():
    model = torch.nn.Linear(2, 2)
    before = _trainable(model)
    model.bias.data += 1
    assert _trainable(model) != before


def test_losses_are_recorded_and_then_taken_in_order():
    class Forward:
        def loss_sum(self, batch):
            return torch.tensor(float(batch)), torch.tensor(1)

    class Module:
        forward_pass = Forward()

    with _losses(Module, []) as computed:
        assert [Module.forward_pass.loss_sum(batch)[0].item() for batch in (3, 4)] == [3, 4]
    with _losses(Module, computed):
        assert [Module.forward_pass.loss_sum(batch)[0].item() for batch in (8, 9)] == [3, 4]
    assert Module.forward_pass.loss_sum(8)[0].item() == 8
