"""Every YAML of conf/model against the configuration of its model, on the meta device: family, size, LoRA targets, positions."""

import re
from typing import Any

import pytest
import torch
import yaml

from llmft.config.paths import conf_dir
from llmft.models.architecture_check import check_config
from llmft.models.backbone import load as backbone
from llmft.models.peft import lora
from tests.conftest import ROOT

PUBLISHED: Any = yaml.safe_load((ROOT / "tests/fixtures/published_models.yaml").read_text(encoding="utf-8"))
FILES = {file.stem: file for file in conf_dir().glob("model/[!_]*.yaml")}
# Built on the fly, or of any path.
WITHOUT = {"auto", "marian", *(name for name in FILES if name.startswith("tiny_"))}
# One per architecture in the default run.
FAST = ("bart_base", "pegasus_large", "nllb_600m", "mt5_small", "t5gemma_2b_2b", "qwen2_5_0_5b", "qwen3_0_6b", "llama3_2_1b", "gemma3_1b", "smollm3_3b",
        "phi4_mini", "mistral_7b", "olmo2_1b", "granite3_3_2b")  # fmt: skip


def test_every_model_names_the_source_of_its_configuration():
    unverified = {name for name, file in FILES.items() if "not verified" in file.read_text(encoding="utf-8")}
    assert set(FILES) - WITHOUT - unverified == set(PUBLISHED)
    assert all(
        re.search(r"@[0-9a-f]{7}:|transformers [\d.]+, defaults of", entry["source"]) for entry in PUBLISHED.values()
    )


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in FAST else pytest.mark.slow) for n in PUBLISHED])
def test_a_yaml_fits_its_model(name, load_config):
    import transformers

    cfg, entry = load_config(f"model={name}"), PUBLISHED[name]
    config = getattr(transformers, entry["config_class"])(**entry["config"])
    auto_class = backbone.family_of(cfg.model).auto_class
    assert backbone.model_class(config, auto_class) is not None  # the family of the YAML has this architecture
    check_config(config, cfg)  # positions for the default budgets
    with torch.device("meta"):
        model = auto_class.from_config(config)
    head = model.get_output_embeddings().weight
    total = sum(p.numel() for p in model.parameters()) + head.numel() * entry.get("untied_head", False)
    assert round(total / 1e6) == entry["parameters"]
    assert shown(FILES[name].read_text(encoding="utf-8")) == pytest.approx(entry["parameters"], rel=0.03)
    blocks = sum(
        getattr(config, key, 0) or 0 for key in ("encoder_layers", "decoder_layers", "num_layers", "num_decoder_layers")
    )
    blocks = blocks or getattr(config, "num_hidden_layers", 0)
    for target in lora.targets(model, "auto", list(cfg.model.lora_targets)):
        found = [path for path, _ in model.named_modules() if path.rpartition(".")[2] == target]
        assert len(found) >= blocks  # in every block


def shown(text: str) -> float:
    """The parameters that the first comment of a YAML states, in millions."""
    found = re.search(r"^# ([\d.]+)([MB])", text, re.MULTILINE)
    assert found
    return float(found[1]) * {"M": 1, "B": 1000}[found[2]]


def test_a_model_without_a_path_asks_for_one(llmft):
    code, _, err = llmft("model=marian", "data=academic")
    assert code == 2
    assert "model.path" in err


def test_the_page_of_models_has_a_row_of_each():
    page = (ROOT / "docs/models.md").read_text(encoding="utf-8")
    for name, entry in PUBLISHED.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
        text = FILES[name].read_text(encoding="utf-8")
        license_id = yaml.safe_load(text).get("license") or "see its card"
        assert row.split(" | ")[2] == license_id
        assert entry["source"] in row
        assert shown(f"# {row.split(' | ')[1]}") == shown(text)
