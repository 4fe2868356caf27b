"""Encoder-decoders of every kind: loss, gradients, labels, greedy answers and exports are those of plain transformers."""

import pytest
import torch

from llmft.data.batching.collate import training_batch
from llmft.data.records import Turn
from llmft.utils.errors import UserError
from tests.guarantees.reference import measured
from tests.support.twins import SEQ2SEQ, SIZE, build

# One twin per code path in the default run; the others differ in their size and their tokenizer.
FAST = ("bart", "marian", "nllb", "mbart")
TWINS = [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in SEQ2SEQ]
DATA = ("data=alpaca", "data.path=sample", "data.limit=16", "data.max_prompt_tokens=700", "data.max_answer_tokens=700")
CONTEXTS = [(Turn("user", text),) for text in ("Hello there", "Name a color, please; any color.", "x")]


@pytest.fixture(scope="session")
def twin(tmp_path_factory):
    root = tmp_path_factory.mktemp("twins")
    return lambda name: build(name, root / name)


def adapted(module):
    for name, p in module.model.named_parameters():
        if "lora_B" in name:  # zeros would hide the gradient of lora_A
            torch.nn.init.normal_(p, std=0.1, generator=torch.Generator().manual_seed(1))
    module.eval()
    return module


def step(module, sequences, pad_id, parts=1):
    """Loss, tokens and gradients of a window of some batches."""
    module.zero_grad()
    batches = [training_batch(sequences[part::parts], pad_id) for part in range(parts)]
    sums = [module.forward_pass.loss_sum(batch) for batch in batches]
    total, tokens = (torch.stack(values).sum() for values in zip(*sums, strict=True))
    (total / tokens).backward()
    gradients = {name: p.grad.clone() for name, p in module.model.named_parameters() if p.grad is not None}
    return total.item() / int(tokens), int(tokens), gradients


def assert_same(found, expected):
    loss, tokens, gradients = found
    assert tokens == expected["tokens"]
    assert loss == pytest.approx(expected["loss"], rel=1e-5)
    assert gradients.keys() == expected["gradients"].keys()
    largest = max(float(gradient.abs().max()) for gradient in gradients.values())
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected["gradients"][name], rtol=1e-4, atol=1e-5 * largest, msg=name)


@pytest.mark.parametrize("peft", [pytest.param("none", marks=pytest.mark.slow), "lora"])
@pytest.mark.parametrize("name", TWINS)
def test_loss_and_gradients_are_those_of_single_rows(name, peft, twin, built):
    data, module = built(*twin(name), f"peft={peft}", *DATA)
    adapted(module)
    rows = data.encoded["train"][:7]
    tokenizer = data.codec.tokenizer
    start = tokenizer.convert_tokens_to_ids(SEQ2SEQ[name].start)
    if forced := SEQ2SEQ[name].forced:
        assert {row.labels[0] for row in rows} == {tokenizer.convert_tokens_to_ids(forced)}
    expected = measured(module.model, [(row.input_ids, row.labels) for row in rows], start)
    ways = [[[row] for row in rows]] + [[list(rows[:4]), list(rows[4:])]] * SEQ2SEQ[name].packs
    for varlen in (False, True):
        module.forward_pass.kernels.varlen = varlen
        for sequences in ways:
            assert_same(step(module, sequences, data.pad_id), expected)
        assert_same(step(module, ways[-1], data.pad_id, parts=2), expected)
        if varlen:
            assert bool(module.forward_pass.kernels.packing_is_equivalent) == SEQ2SEQ[name].packs


@pytest.mark.parametrize("peft", ["none", "unfreeze"])
def test_sinusoidal_positions_are_not_trained(peft, twin, built):
    """They get no gradient, and a guard halts a training in which a weight has none."""
    from llmft.models.peft.layer_groups import upper

    model = built(*twin("marian"), f"peft={peft}", *DATA)[1].model
    positions = {model.model.encoder.embed_positions.weight, model.model.decoder.embed_positions.weight}
    assert {p for p in model.parameters() if not p.requires_grad} == positions
    assert positions.isdisjoint(upper(model, "all"))


def answers(folder, base, contexts, tokenizer, start):
    """The greedy answers of an exported folder, by plain transformers and peft, one at a time and without padding."""
    from peft import PeftModel
    from transformers import AutoModelForSeq2SeqLM, GenerationConfig

    adapter = (folder / "adapter_config.json").is_file()
    model = AutoModelForSeq2SeqLM.from_pretrained(base if adapter else folder)
    # generate() takes what these settings leave open, such as BART's forced last token, from those of the base
    model.generation_config = settings = GenerationConfig.from_pretrained(folder)
    model = (PeftModel.from_pretrained(model, folder) if adapter else model).eval()
    assert settings.decoder_start_token_id == start
    for context in contexts:
        ids = tokenizer.apply_chat_template([turn.message() for turn in context], add_generation_prompt=True)[
            "input_ids"
        ]
        out = model.generate(input_ids=torch.tensor([ids]), generation_config=settings)[0].tolist()
        yield out, tokenizer.decode(out[1:], skip_special_tokens=True, clean_up_tokenization_spaces=False)


@pytest.mark.parametrize("form", ["merged", pytest.param("adapter", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in ("bart", "mbart") else pytest.mark.slow) for n in SEQ2SEQ]
)
def test_a_run_answers_as_plain_transformers_on_its_export(name, form, twin, tmp_path):
    """Batched greedy answers of the run; of the export with the chat template, generation config and weights that it holds."""
    from transformers import AutoTokenizer

    from llmft import train
    from llmft.generation.load import load_tuned

    chosen = twin(name)
    run = train([*chosen, "peft=lora", *DATA, "data.batching=grouped", "trainer.max_steps=2", "optim.lr=2e-2", "scheduler=constant",
                 "trainer.accumulate_grad_batches=2", "data.batch_size=4", "questions=0", "evaluate.rows=0", "report.write=false", "logger=none",
                 "baseline=false", "callbacks.samples.number=0", "generation.max_new_tokens=8", "callbacks.progress.refresh_rate=0",
                 f"output_dir={tmp_path / 'run'}"])  # fmt: skip
    found = load_tuned(run.path, run.config, run.config.generation).answers(CONTEXTS)
    exported = run.export(tmp_path / form, form=form)
    tokenizer = AutoTokenizer.from_pretrained(exported.path)
    start = tokenizer.convert_tokens_to_ids(SEQ2SEQ[name].start)
    plain = list(answers(exported.path, run.config.model.path, CONTEXTS, tokenizer, start))
    assert [answer.text for answer in found] == [text for _, text in plain]
    for ids, _ in plain:
        assert ids[0] == start
        if SEQ2SEQ[name].forced:
            assert ids[1] == tokenizer.convert_tokens_to_ids(SEQ2SEQ[name].forced)


@pytest.mark.parametrize(
    ("config", "options", "said"),
    [
        ("PegasusXConfig", {"block_size": 16, "num_global_tokens": 4}, "this model cannot run a packed sequence"),
        ("FSMTConfig", {}, r"its head is not applied to \[batch, tokens\]; use performance=plain"),
    ],
)
def test_an_unknown_architecture_is_refused_with_the_reason(config, options, said):
    """Not in the table of architectures: found when the first batch is compared."""
    import transformers

    from llmft.data.tokenization.codec import EncodedExample
    from llmft.models.seq2seq import Seq2SeqForward

    ids = {"vocab_size": 60, "pad_token_id": 1, "eos_token_id": 2, "bos_token_id": 0, "decoder_start_token_id": 2}
    size = {key: value for key, value in SIZE.items() if config != "FSMTConfig" or not key.endswith("layerdrop")}
    vocabularies = {"src_vocab_size": 60, "tgt_vocab_size": 60, "langs": ["en", "de"]} if config == "FSMTConfig" else {}
    made = getattr(transformers, config)(**{**size, **ids, **vocabularies, **options})
    model = transformers.AutoModelForSeq2SeqLM.from_config(made, attn_implementation="eager").eval()
    rows = [EncodedExample(list(range(3, 3 + n)), list(range(5, 12 + n)), n, 7 + n, 7 + n, place="x") for n in (9, 14)]
    forward = Seq2SeqForward(model)
    batch = training_batch([rows] if options else [[row] for row in rows], 1)
    with pytest.raises(UserError, match=said):
        _ = forward.check_packing(rows, 1) if options else forward.loss_sum(batch)
