"""The forward pass of a model: its kernels, what NaN weights say about them, and names of stored runs."""

import pytest
import torch

from llmft.data.batching.collate import training_batch, without_layout
from llmft.data.tokenization.codec import IGNORED, EncodedExample
from llmft.models.attention.kernels import Kernels
from llmft.models.causal import Causal, CausalForward
from llmft.models.peft.trainable import load_weights, trainable_names
from llmft.models.seq2seq import Seq2Seq, Seq2SeqForward
from llmft.utils.device import to_device
from llmft.utils.errors import UserError

EXAMPLES = [EncodedExample([5, 6, 7], [IGNORED, 6, 7], 1, 2, 2), EncodedExample([8, 9, 3, 4, 2], [IGNORED, 9, 3, 4, 2], 1, 4, 4)]  # fmt: skip


def tiny_llama(**more):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    numbers = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=11, num_key_value_heads=1, **numbers, **more))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"attention": "by_length", "padding": "skipped"}, Kernels(by_length=True, varlen=True)),
        ({"attention": "sdpa", "padding": "kept"}, Kernels()),
        ({"attention": "sdpa", "padding": "kept", "liger": "true"}, Kernels(liger=True)),
    ],
)
def test_kernels_of_a_config(config, expected, load_config):
    overrides = [f"model.{key}={value}" for key, value in config.items()]
    assert Kernels.from_config(load_config(*overrides)) == expected
    assert Kernels.from_config(load_config(*overrides, "performance=plain")).plain


def test_each_verdict_is_reached_once_and_kept():
    forward = CausalForward(tiny_llama(), Kernels(varlen=True))
    batch = training_batch([[example] for example in EXAMPLES], pad_id=0)
    total, tokens = forward.loss_sum(batch)
    assert (forward.kernels.packing_is_equivalent, forward.kernels.head_is_last) == (True, True)
    assert int(tokens) == 6
    plain, _ = CausalForward(forward.model, Kernels(plain=True)).loss_sum(batch)
    torch.testing.assert_close(total, plain)


@pytest.mark.parametrize("family", [CausalForward, Seq2SeqForward])
@pytest.mark.parametrize("packed", [False, True])
def test_positions_with_a_loss_come_with_the_batch_on_a_gpu(family, packed):
    examples = [*EXAMPLES, EncodedExample([4, 3], [4, 3], 1, 2, 2)]  # all of it is trained
    batch = training_batch([examples, EXAMPLES] if packed else [[example] for example in examples], pad_id=0)
    forward = family(None)
    expected = forward.positions(batch, forward.targets(batch)).index
    there = to_device(batch, "meta") | {"layout": batch["layout"]}  # "meta" cannot be asked, a GPU is better not asked
    assert torch.equal(forward.positions(there, forward.targets(there)).index, expected)
    for changed in (without_layout(there), there | {"labels": there["labels"].fill_(1)}):
        with pytest.raises(NotImplementedError):  # it is asked after all
            forward.positions(changed, forward.targets(changed))


def test_weights_that_are_not_finite_say_nothing_about_packing(caplog):
    forward = CausalForward(tiny_llama(), Kernels(varlen=True))
    with torch.no_grad():
        forward.model.get_output_embeddings().weight.fill_(float("nan"))
    with caplog.at_level("INFO"):
        total, _ = forward.loss_sum(training_batch([[example] for example in EXAMPLES], pad_id=0))
    assert bool(total.isnan())
    assert forward.kernels.packing_is_equivalent is None
    assert "padding is kept" not in caplog.text
    assert forward.check_packing(EXAMPLES, 0) is None


def test_running_out_of_memory_says_nothing_about_packing(monkeypatch):
    forward = CausalForward(tiny_llama(), Kernels(varlen=True))

    def exhausted(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(forward.model, "forward", exhausted)
    with pytest.raises(torch.OutOfMemoryError):
        forward.loss_sum(training_batch([[example] for example in EXAMPLES], pad_id=0))


def test_stored_runs_name_the_families_by_their_former_names():
    assert Causal is CausalForward
    assert Seq2Seq is Seq2SeqForward


def test_weights_are_loaded_by_the_names_of_a_checkpoint_or_refused():
    model, other = tiny_llama(), tiny_llama(tie_word_embeddings=True)
    weights = {f"model.{name}": torch.full_like(p, 0.5) for name, p in model.named_parameters()}
    assert weights.keys() == trainable_names(model)
    load_weights(model, weights)
    assert all(bool((p == 0.5).all()) for p in model.parameters())
    with pytest.raises(UserError, match=r"unknown \['model.lm_head.weight'\]"):
        load_weights(other, weights)
    weights["model.lm_head.weight"] = torch.zeros(2, 2)
    with pytest.raises(UserError, match=r"weights do not fit this model and peft: .*size mismatch for lm_head.weight"):
        load_weights(model, weights)
