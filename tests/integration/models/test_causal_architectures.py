"""Causal models of today: loss, gradients and greedy answers are those of plain transformers, for one twin per architecture."""

import pytest
import torch

from llmft.utils.errors import UserError
from tests.guarantees.reference import measured
from tests.integration.models.test_encoder_decoders import adapted, assert_same, step
from tests.support.twins import CAUSAL, build

FAST = ("qwen3", "granite", "gpt_oss")
TWINS = [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in CAUSAL]
DATA = ("data=alpaca", "data.path=sample", "data.limit=16", "data.max_prompt_tokens=700", "data.max_answer_tokens=700")


@pytest.fixture(scope="session")
def twin(tmp_path_factory):
    root = tmp_path_factory.mktemp("twins")
    return lambda name: build(name, root / name)


@pytest.mark.parametrize("peft", [pytest.param("none", marks=pytest.mark.slow), "lora"])
@pytest.mark.parametrize("name", TWINS)
def test_loss_and_gradients_are_those_of_single_rows(name, peft, twin, built):
    data, module = built(*twin(name), f"peft={peft}", *DATA)
    adapted(module)
    rows = data.encoded["train"][:7]
    expected = measured(module.model, [(row.input_ids, row.labels) for row in rows])
    packs = CAUSAL[name].packs
    ways = [[[row] for row in rows]] + [[list(rows[:4]), list(rows[4:])]] * packs
    for varlen in (False, True):
        module.forward_pass.kernels.varlen = varlen
        for sequences in ways:
            assert_same(step(module, sequences, data.pad_id), expected)
    if not packs:  # its mask does not see positions that restart
        assert module.forward_pass.kernels.packing_is_equivalent is False
        with pytest.raises(UserError, match="lets packed examples attend to each other"):
            module.forward_pass.check_packing(rows[:4], data.pad_id)


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n == "gpt_oss" else pytest.mark.slow) for n in CAUSAL])
def test_answers_are_those_of_plain_generate(name, twin, built):
    from llmft.generation.generator import Generator

    data, module = built(*twin(name), "peft=none", *DATA)
    model = module.model.eval()
    prompts = [row.input_ids[: row.prompt_length] for row in data.encoded["train"][:3]]
    settings = {"do_sample": False, "max_new_tokens": 6, "batch_size": 3, "seed": 1}
    found = Generator(model, data.codec, settings).continued(prompts)
    for prompt, answer in zip(prompts, found, strict=True):
        with torch.no_grad():
            out = model.generate(torch.tensor([prompt]), max_new_tokens=6, do_sample=False, pad_token_id=2)[0].tolist()
        assert answer.text == data.codec.decode([i for i in out[len(prompt) :] if i != 2])
