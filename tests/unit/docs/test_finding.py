"""What a reader searches for is found: the field's words, and the keys that the migration pages name."""

import re

import pytest

from llmft.config.paths import conf_dir
from tests.conftest import ROOT
from tests.support.docs_scripts import docs_script

DOCS = ROOT / "docs"
MIGRATION = sorted(DOCS.glob("from-*.md"))
# The word as it is searched for, and the page that answers; each must be in one of its headings, its first lines or a table.
WORDS = {
    "inference": "answer.md",
    "chat": "chat.md",
    "deployment": "export.md",
    "merged weights": "export.md",
    "quantize": "export.md",
    "Ollama": "export.md",
    "vLLM": "inference-servers.md",
    "OpenAI-compatible": "serve.md",
    "which model": "hyperparameters.md",
    "learning rate": "hyperparameters.md",
    "hyperparameter": "hyperparameters.md",
    "batch size": "hyperparameters.md",
    "epochs": "hyperparameters.md",
    "LoRA rank": "hyperparameters.md",
    "warm-up": "hyperparameters.md",
    "early stopping": "hyperparameters.md",
    "mixed precision": "hyperparameters.md",
    "weight decay": "hyperparameters.md",
    "gradient clipping": "hyperparameters.md",
    "gradient accumulation": "hyperparameters.md",
    "gradient checkpointing": "adapters.md",
    "full fine-tuning": "adapters.md",
    "QLoRA": "adapters.md",
    "DoRA": "adapters.md",
    "distillation": "adapters.md",
    "quantized": "adapters.md",
    "validation set": "data.md",
    "test set": "data.md",
    "truncation": "data.md",
    "packing": "performance.md",
    "streaming": "data.md",
    "system prompt": "data.md",
    "tool call": "chat-data.md",
    "reasoning": "chat-data.md",
    "chat template": "templates.md",
    "out of memory": "troubleshooting.md",
    "NaN": "troubleshooting.md",
    "overfitting": "troubleshooting.md",
    "answers never stop": "troubleshooting.md",
    "learned nothing": "troubleshooting.md",
    "resume from a checkpoint": "resume.md",
    "SIGTERM": "resume.md",
    "GPU": "install.md",
    "offline": "install.md",
    "pip install": "install.md",
    "perplexity": "report.md",
    "confidence interval": "evaluation.md",
    "LLM as a judge": "evaluation.md",
    "lm-evaluation-harness": "evaluation.md",
    "leaderboard": "evaluation.md",
    "Optuna": "sweeps.md",
    "SLURM": "scale.md",
    "FSDP": "scale.md",
    "DeepSpeed": "scale.md",
    "license": "models.md",
    "SFTTrainer": "from-trl.md",
}
KEYS = set(
    re.findall(r"^\| `([\w./]+)` \|", docs_script("make_reference").PAGE.read_text(encoding="utf-8"), re.MULTILINE)
)
GROUPS = {str(file.parent.relative_to(conf_dir())) for file in conf_dir().rglob("*.yaml")} - {"."}


def prominent(text: str) -> str:
    """The parts of a page that are read at a glance: headings, the first lines, table rows, bold words."""
    lines = text.split("\n")
    bold = re.findall(r"\*\*(.+?)\*\*", text)
    return "\n".join([*lines[:8], *(line for line in lines if line.startswith(("#", "|"))), *bold]).lower()


@pytest.mark.parametrize("word", WORDS)
def test_a_word_of_the_field_is_on_the_page_that_answers(word):
    assert word.lower() in prominent((DOCS / WORDS[word]).read_text(encoding="utf-8")), WORDS[word]


def known(shown: str) -> bool:
    """Whether each ``key`` or ``key=value`` of a command line is one of ours, and each option of a group is there."""
    for word in shown.split():
        key, equals, value = word.partition("=")
        if key in GROUPS and equals and not (conf_dir() / key / f"{value}.yaml").is_file() and value != "auto":
            return False
        if key not in KEYS | GROUPS:
            return False
    return True


@pytest.mark.parametrize("page", MIGRATION, ids=lambda page: page.name)
def test_the_keys_of_a_migration_page_are_ours(page):
    section = page.read_text(encoding="utf-8").split("## Keys\n")[1].split("\n## ")[0]
    ours = [line.split("|")[2] for line in section.split("\n") if line.startswith("| ")][1:]
    named = [name for cell in ours for name in re.findall(r"`([^`]+)`", cell)]
    assert len(named) > 20
    assert [name for name in named if not known(name)] == []


def test_a_key_that_is_not_there_is_seen():
    assert known("optim.lr")
    assert known("model=auto model.path=...")
    assert not known("optim.learning_rate")
    assert not known("peft=lora_4bit")
