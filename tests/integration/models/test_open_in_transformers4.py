"""`make compat`: ``model/``, merged weights and adapters give the same ids and logits in transformers 4 as in training.

transformers 4 is in an environment of its own; cases and results travel in JSON files (tests/support/open_in_transformers4.py).
"""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch

from llmft.data.records import Turn
from llmft.models.backbone import transformers4
from llmft.models.backbone.open import TrainedBackbone
from llmft.models.backbone.special_ids import decoder_start_id
from llmft.models.backbone.tiny import KINDS
from tests.conftest import ROOT
from tests.integration.conftest import SHORT
from tests.support.twins import CAUSAL, SEQ2SEQ, build

PYTHON = Path(os.environ.get("LLMFT_COMPAT_PYTHON", ROOT / ".venv-compat" / "bin" / "python"))
NAMES = [*(f"tiny_{kind}" for kind in KINDS), *SEQ2SEQ, *CAUSAL]
FORMS = ("model", "merged", "adapter")
TEXT = "Name 3 colors, please."
# Attention of Gemma 2 and T5Gemma (soft cap) is computed in another order.
TOLERANCE = {"gemma2": 5e-4, "t5gemma": 5e-4}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON.is_file(), reason="make compat builds the environment of transformers 4"),
]


def base(name, root):
    """The overrides that train a model whose folder transformers 4 reads, as those on the Hub."""
    if name.startswith("tiny_"):
        return [f"model={name}"]
    chosen, folder = build(name, root / name), root / name
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    model = (AutoModelForSeq2SeqLM if name in SEQ2SEQ else AutoModelForCausalLM).from_pretrained(folder)
    for part in (model.config, getattr(model.config, "encoder", None), getattr(model.config, "decoder", None)):
        rope = getattr(part, "rope_parameters", None)
        if rope and "rope_theta" in rope:  # not the default, which transformers 4 would take
            rope["rope_theta"] = 777.0
    transformers4.save_model(model, folder)
    transformers4.rewrite_tokenizer_config(folder)
    return chosen


@torch.inference_mode()
def case(folder, run, form):
    """What a folder should give: ids, and logits of the trained model."""
    backbone = TrainedBackbone(run.path / "model", run.config)
    model, codec = backbone.load().eval(), backbone.codec
    turns = [Turn("user", TEXT)]
    ids = codec.prompt_ids(codec.template.render(turns))
    decoder_ids, inputs = [], {"input_ids": torch.tensor([ids])}
    if model.config.is_encoder_decoder:
        decoder_ids = [decoder_start_id(model), *ids[:15]]
        inputs["decoder_input_ids"] = torch.tensor([decoder_ids])
    return {
        "folder": str(folder),
        "base": backbone.path if form == "adapter" else None,
        "messages": [turn.message() for turn in turns],
        "ids": ids,
        "decoder_ids": decoder_ids,
        "text": TEXT,
        "text_ids": codec.tokenizer(TEXT)["input_ids"],
        "logits": model(**inputs).logits[0].tolist(),
    }


def cases(root):
    from llmft import train

    for name in NAMES:
        chosen = base(name, root / "bases")
        for peft in ("none", "lora"):
            run = train([*chosen, f"peft={peft}", "data=alpaca", *SHORT, "data.limit=8", "trainer.max_steps=2",
                         f"output_dir={root / name / peft}"])  # fmt: skip
            if peft == "none":
                yield name, "model", case(run.path / "model", run, "model")
                continue
            for form in ("merged", "adapter"):
                exported = run.export(root / name / form, form=form)
                yield name, form, case(exported.path, run, form)


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Cases and what transformers 4 found, by name and form."""
    root = tmp_path_factory.mktemp("compat")
    made = list(cases(root))
    (root / "cases.json").write_text(json.dumps([entry for *_, entry in made]))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    script = ROOT / "tests" / "support" / "open_in_transformers4.py"
    subprocess.run([PYTHON, script, root / "cases.json", root / "found.json"], check=True, env=environment)
    found = json.loads((root / "found.json").read_text())
    assert found["version"].startswith("4.")
    results = {(name, form): (entry, out) for (name, form, entry), out in zip(made, found["found"], strict=True)}
    for form in FORMS:
        differences = {
            name: out.get("difference", out.get("error")) for (name, f), (_, out) in results.items() if f == form
        }
        print(f"transformers {found['version']}, {form}: {json.dumps(differences)}")
    return results


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NAMES)
def test_transformers_4_gives_the_ids_and_logits_of_the_trained_model(name, form, opened):
    expected, found = opened[name, form]
    assert "error" not in found, found
    assert found["ids"] == expected["ids"]
    assert found["text_ids"] == expected["text_ids"]
    assert found["difference"] < TOLERANCE.get(name, 2e-5)
