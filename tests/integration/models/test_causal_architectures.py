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


@pytest.mark.parametrize("form", ["merged", pytest.param("adapter", marks=pytest.mark.slow)])
def test_of_a_model_that_sees_the_language_model_is_trained(form, tmp_path):
    """Gemma 3 from 4B on: the same logits, no vision weights, and an export that plain transformers loads."""
    from transformers import AutoModelForCausalLM, Gemma3Config, Gemma3ForConditionalGeneration

    from llmft import train
    from llmft.generation.load import load_tuned

    folder = tmp_path / "model"
    folder.mkdir()
    tokenizer = CAUSAL["mistral"].tokenizer(folder)
    text = CAUSAL["gemma2"].config(tokenizer).to_dict()
    kept = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
            "query_pre_attn_scalar", "sliding_window", "pad_token_id", "eos_token_id", "bos_token_id", "initializer_range")  # fmt: skip
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "image_size": 28,
        "patch_size": 14,
    }
    config = Gemma3Config(text_config={key: text[key] for key in kept}, vision_config=vision, mm_tokens_per_image=4,
                          image_token_index=5, boi_token_index=6, eoi_token_index=7)  # fmt: skip
    whole = Gemma3ForConditionalGeneration(config).eval()
    whole.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    run = train(["model=auto", f"model.path={folder}", "model.dtype=float32", "peft=lora", *DATA, "trainer.max_steps=1", "questions=0", "evaluate.rows=0", "report.write=false",
                 "logger=none", "baseline=false", "callbacks.samples.number=0", "callbacks.progress.refresh_rate=0", f"output_dir={tmp_path / 'run'}"])  # fmt: skip
    assert list(run.config.model.lora_targets) == ["k_proj", "o_proj", "q_proj", "v_proj"]
    tuned = load_tuned(run.path, run.config, run.config.generation).model.eval()
    ids = torch.tensor([[9, 30, 60, 100]])
    with torch.no_grad(), tuned.disable_adapter():
        torch.testing.assert_close(tuned(input_ids=ids).logits, whole(input_ids=ids).logits, rtol=1e-4, atol=1e-5)
    if form == "adapter":
        with pytest.raises(UserError, match="export"):
            run.export(tmp_path / "out", form="adapter")
        return
    run.export(tmp_path / "out", form="merged")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    assert type(loaded).__name__ == "Gemma3ForCausalLM"
    with torch.no_grad():
        torch.testing.assert_close(loaded(input_ids=ids).logits, tuned(input_ids=ids).logits, rtol=1e-3, atol=1e-4)
