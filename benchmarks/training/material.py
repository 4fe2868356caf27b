"""What all sides of a case share: model folder, examples, and initial adapter."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir

from llmft.config.paths import conf_dir
from llmft.config.schema import TrainConfig
from llmft.config.typed import typed
from llmft.data.datamodule import open_data
from llmft.data.sources import find
from llmft.models.backbone.open import Backbone
from llmft.utils.logging import quiet
from training.cases import Case
from training.shapes import SHAPES, build, read

BATCH = 8
# learning rates, set on all sides because the defaults differ
RATES = {"none": 2e-5, "lora": 2e-4}


@dataclass(frozen=True)
class Material:
    """Inputs of the sides.

    Attributes:
        model: The model's folder.
        given: The overrides that name the model.
        data: The selected rows in the format of the data set.
        rows: The same, tokenized: ``input_ids`` and ``labels`` as JSON lines.
        adapter: Initial LoRA weights; None for full fine-tuning.
        rows_in_all: Number of examples to select from.
        tokens: Token budgets of prompt and answer.
    """

    model: str
    given: tuple[str, ...]
    data: Path
    rows: Path
    adapter: Path | None
    rows_in_all: int
    tokens: tuple[int, int] = (512, 512)


def prepare(case: Case, model: str, path: str, count: int, folder: Path, models: Path) -> Material:
    """Write the examples and the adapter of a case.

    Args:
        case: What is compared.
        model: An option of llmft's ``model`` group, or a name of ``shapes.SHAPES``.
        path: Path of the data; ``sample`` for the shipped samples.
        count: Number of training examples; they are spread over the whole file.
        folder: Output folder.
        models: Folder of shapes and initial adapters, which several cases share.
    """
    quiet()
    given = (f"model={model}",)
    if model in SHAPES:
        given = (f"model={SHAPES[model].option}", f"model.path={build(model, case.data, path, models)}")
        given += ("model.dtype=bfloat16",) if SHAPES[model].dtype == "bfloat16" else ()
    if case.words:
        path = str(generated(path, case, count, folder / "generated.json"))
    line = (*given, f"data={case.data}", f"data.path={path}", *common(case))
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = typed(compose("train", overrides=[*line, f"output_dir={folder}"]), TrainConfig).config
    backbone = Backbone.open(cfg)
    data = open_data(cfg.data)
    data.read()
    data.encode(backbone.codec)
    rows = data.in_order()
    if len(rows) < count:
        raise SystemExit(f"{path} has {len(rows)} examples within the token budgets, {count} are needed: lower --steps")
    chosen = np.linspace(0, len(rows) - 1, count).astype(int)
    originals = read(data.source.parts[0].file)
    owners = data.row_columns["example"][rows.indices[chosen]]
    subset = folder / "rows.json"
    subset.write_text(json.dumps([originals[owner] for owner in owners]), encoding="utf-8")
    encoded = [{"input_ids": list(row.input_ids), "labels": list(row.labels)} for row in (rows[i] for i in chosen)]
    (folder / "encoded.jsonl").write_text("".join(json.dumps(row) + "\n" for row in encoded), encoding="utf-8")
    adapter = first_adapter(cfg, backbone, models / f"{model}-{case.data}-adapter") if case.peft == "lora" else None
    return Material(backbone.path, given, subset, folder / "encoded.jsonl", adapter, len(rows))


def generated(path: str, case: Case, count: int, file: Path) -> Path:
    """Rows of Alpaca's format, whose answers are random words of the data set, always the same ones."""
    assert case.words
    rng = np.random.default_rng(1)
    texts = (str(text) for row in read(find(path, case.data).parts[0].file) for text in row.values())
    words = sorted({word for text in texts for word in text.split()})
    answers = [" ".join(rng.choice(words, rng.integers(*case.words, endpoint=True))) for _ in range(count)]
    rows = [{"instruction": f"Example {n}", "input": "", "output": answer} for n, answer in enumerate(answers)]
    file.write_text(json.dumps(rows), encoding="utf-8")
    return file


def common(case: Case) -> tuple[str, ...]:
    """The overrides of every llmft side, besides model, data and the side's own."""
    own = ("peft.dropout=0",) if case.peft == "lora" else ()
    return (
        f"peft={case.peft}",
        *own,
        "model.dropout=0",
        f"data.batch_size={BATCH}",
        "data.too_long=drop",
        "data.split={train:null,val:0,test:0}",
        "data.split_by=position",
        f"optim.lr={RATES[case.peft]}",
        "scheduler=constant",
        "trainer.max_epochs=1",
        "seed=1",
    )


def first_adapter(cfg: Any, backbone: Backbone, folder: Path) -> Path:
    """LoRA matrices as llmft makes them, once per folder: a large model takes a while to load."""
    if not (folder / "adapter_model.safetensors").is_file():
        torch.manual_seed(cfg.seed)
        backbone.load_adapted().save_pretrained(folder)
    return folder
