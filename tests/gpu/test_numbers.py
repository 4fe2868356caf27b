"""A GPU computes what a CPU does: losses of whole trainings in float32, in bf16-mixed and in 16-mixed, packed or not."""

import math

import pytest

from tests.gpu.conftest import farthest, values

pytestmark = pytest.mark.gpu
EXACT = ("model.dropout=0", "model.dtype=float32")


@pytest.mark.parametrize("peft", [("peft=none",), ("peft=lora", "peft.dropout=0")], ids=["full", "lora"])
@pytest.mark.parametrize("model", ["tiny_t5", "tiny_gpt2", "tiny_llama"])
def test_losses_are_those_of_the_cpu(model, peft, trained, record_property):
    overrides = (f"model={model}", *peft, *EXACT)
    cpu = values(trained("cpu", "cpu", *overrides, "trainer.precision=32-true"))
    whole = farthest(values(trained("whole", "gpu", *overrides, "trainer.precision=32-true")), cpu)
    mixed = farthest(values(trained("mixed", "gpu", *overrides, "trainer.precision=bf16-mixed")), cpu)
    record_property("float32", f"{whole:.1e}")
    record_property("bf16-mixed", f"{mixed:.1e}")
    assert whole < 1e-4
    assert mixed < 3e-2


@pytest.mark.parametrize("model", ["tiny_t5", "tiny_llama"])
def test_packed_losses_are_those_of_the_cpu(model, trained, record_property):
    overrides = (f"model={model}", "peft=lora", "peft.dropout=0", "data.batching=packed", *EXACT)
    cpu = values(trained("cpu", "cpu", *overrides, "trainer.precision=32-true"))
    whole = farthest(values(trained("whole", "gpu", *overrides, "trainer.precision=32-true")), cpu)
    record_property("float32", f"{whole:.1e}")
    assert whole < 1e-4


@pytest.mark.cuda_only
@pytest.mark.parametrize("accumulate", [1, 4])
def test_float16_skips_few_steps_and_the_schedule_waits_for_them(accumulate, trained, record_property):
    """The scaler starts at 65,536 and halves until nothing overflows; a mean loss over 30 tokens needs one or two halvings."""
    rows = trained(
        "half", "gpu", "model=tiny_llama", "peft=lora", "trainer.precision=16-mixed", "trainer.max_epochs=3", "scheduler=linear",
        f"trainer.accumulate_grad_batches={accumulate}",
    )  # fmt: skip
    rates, norms = values(rows, "lr"), values(rows, "train/grad_norm")
    skipped = [not math.isfinite(norm) for norm in norms]
    record_property("skipped", f"{sum(skipped)} of {len(rows)}")
    assert sum(skipped) <= 3
    assert all(math.isfinite(loss) for loss in values(rows))
    for skip, before, after in zip(skipped, rates, rates[1:], strict=False):
        assert not skip or after == before


@pytest.mark.parametrize("model", ["tiny_t5", "tiny_llama"])
def test_answers_are_those_of_the_cpu(model, built, device, record_property):
    """Greedy, in float32: the same tokens, and the model is where it was."""
    from llmft.data.records import Turn
    from llmft.generation.generator import Generator

    data, module = built(f"model={model}", "peft=none", *EXACT, "data=alpaca", "data.path=sample", "data.limit=20")
    generator = Generator(module.model, data.codec, {"max_new_tokens": 12, "batch_size": 4, "seed": 0})
    questions = [(Turn("user", f"Name {number} colours."),) for number in range(1, 9)]
    expected = [answer.text for answer in generator.answers(questions)]
    module.to(device)
    found = [answer.text for answer in generator.answers(questions)]
    record_property("equal", f"{sum(map(str.__eq__, found, expected))} of {len(expected)}")
    assert found == expected
    assert module.model.device.type == device.type
