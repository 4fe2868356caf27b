"""``answer``, the samples in training, and plain transformers on both exports: the same greedy answers to the same questions."""

from collections.abc import Iterator
from itertools import compress
from typing import Any

import pytest
import torch
from hydra.utils import get_class
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig

from llmft import train
from llmft.data.sources import find, read
from llmft.models.backbone.locate import locate
from tests.conftest import DATA, SHARED, read_json_lines, write_rows

RATES = {"none": 1e-4, "lora": 5e-3}
# Sharpened attention magnifies float32's rounding: logits of merged weights were up to 3e-3 away from those of the adapter.
# Where the two best are closer than that, another CPU or number of threads may take the other one.
TIE = 0.004
MANY, FEW = 50, 10  # questions: in the slow cases, and in the two that every test run has
# the rows are those of shared/data where it is there, else the shipped ones; most of them are validation rows
RUN = (
    "data.split={train:null,val:0.86,test:0}", "data.max_prompt_tokens=3900", "data.max_answer_tokens=100", "data.too_long=trim_answer", "data.batch_size=2",
    "trainer.max_steps=4", "scheduler=constant", "trainer.check_val_every_n_epoch=1", "questions=0", "evaluate.rows=0", "report.write=false", "logger=none", "baseline=false",
    "callbacks.samples.max_new_tokens=12", "generation.max_new_tokens=12", "callbacks.progress.refresh_rate=0",
)  # fmt: skip


@pytest.mark.parametrize(
    ("model", "data", "peft", "questions"),
    [
        ("tiny_gpt2", "alpaca", "lora", FEW),
        ("tiny_t5", "psychology", "none", FEW),
        *(
            pytest.param(model, data, peft, MANY, marks=pytest.mark.slow)
            for model in ("tiny_t5", "tiny_gpt2", "tiny_llama")
            for data in DATA
            for peft in ("none", "lora")
        ),
    ],
)
def test_answers_are_the_same_everywhere(model, data, peft, questions, load_config, llmft, tmp_path):
    real = SHARED / DATA[data]
    source = str(real) if real.is_file() else "sample"
    number = (
        f"data.limit={90 if questions == MANY else 14}",
        f"callbacks.samples.number={questions}",
        f"optim.lr={RATES[peft]}",
    )
    chosen = (
        f"model={model}",
        f"model.path={sharpened(load_config(f'model={model}').model, tmp_path)}",
        f"data={data}",
        f"peft={peft}",
        f"data.path={source}",
    )
    run = train([*chosen, *RUN, *number, f"output_dir={tmp_path / 'run'}"])
    best = run.record["metrics"]["best_step"]
    samples = [row for row in read_json_lines(run.path / "samples.jsonl") if row["step"] == best]
    assert len(samples) == questions
    expected = [row["answer"] for row in samples]
    assert len(set(expected)) > 1
    rows = {located.place: located.row for located in read(find(source, data))}
    asked = [rows[sample["place"]] for sample in samples]

    # as they stand in the file: the reference in them is not shown to the model
    write_rows(tmp_path / "q.jsonl", *asked)
    code, _, err = llmft("answer", f"run={run.path}", "input=q.jsonl", "output=a.jsonl")
    assert code == 0, err
    assert [row["answer"] for row in read_json_lines(tmp_path / "a.jsonl")] == expected
    to_example = get_class(run.config.data.target).to_example
    contexts = [to_example(row).with_system(run.config.data.system).context for row in asked]
    for form in ("merged", "adapter") if peft == "lora" else ("merged",):
        folder = run.export(tmp_path / form, form=form, tolerance=0.02).path
        answers, margins = zip(*plain(folder, run.config, contexts), strict=True)
        clear = [margin > TIE for margin in margins]
        assert sum(clear) > 0.8 * questions
        assert list(compress(answers, clear)) == list(compress(expected, clear)), form


def sharpened(cfg: Any, folder: Any) -> Any:
    """A tiny model with weights four times as large, whose answers differ more than those of one drawn at random."""
    place = locate(cfg)
    model = get_class(cfg.target).auto_class.from_pretrained(place)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(4)
    model.save_pretrained(folder / "base")
    AutoTokenizer.from_pretrained(place).save_pretrained(folder / "base")
    return folder / "base"


def plain(folder: Any, cfg: Any, contexts: Any) -> Iterator[tuple[str, float]]:
    """What the exported folder answers with transformers alone (llmft only finds the base of an adapter).

    With each answer the smallest difference between the two best logits on the way.
    """
    seq2seq = cfg.model.family == "seq2seq"
    auto_class = AutoModelForSeq2SeqLM if seq2seq else AutoModelForCausalLM
    if (folder / "adapter_config.json").is_file():
        model: Any = PeftModel.from_pretrained(auto_class.from_pretrained(locate(cfg.model)), folder)
    else:
        model = auto_class.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="right" if seq2seq else "left")
    settings = GenerationConfig.from_pretrained(folder)
    tokenizer.pad_token_id = settings.pad_token_id
    for start in range(0, len(contexts), 10):
        chats = [[turn.message() for turn in context] for context in contexts[start : start + 10]]
        batch = tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        )
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        with torch.inference_mode():
            out = model.eval().generate(
                **inputs, generation_config=settings, return_dict_in_generate=True, output_logits=True
            )
        given = 1 if seq2seq else inputs["input_ids"].shape[1]
        ids, best = out.sequences[:, given:], torch.stack(out.logits).topk(2).values
        texts = tokenizer.batch_decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        yield from zip(texts, (best[..., 0] - best[..., 1]).amin(0).tolist(), strict=True)
