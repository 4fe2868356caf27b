"""The trained weights -> ``model/``: what transformers and peft load, with prompt, generation settings and a card."""

import json
import shutil
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from llmft.data.account import Account
from llmft.generation import Generator
from llmft.models import adapters, backbone


def save_model(folder: Path, generator: Generator, cfg: DictConfig, place: str, account: Account) -> None:
    """Write the weights (an adapter alone for LoRA), tokenizer, prompt template, generation config and card, all or nothing.

    The prompt that was trained is saved as the tokenizer's chat template, so that ``apply_chat_template`` gives the trained
    prompt's ids to every other tool too.
    """
    unfinished = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was killed here
    try:
        _write(unfinished, generator, cfg, place, account)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)  # of a full disk
        raise
    if folder.exists():  # of a run that was resumed to train for longer
        shutil.rmtree(folder)
    unfinished.rename(folder)


def _write(folder: Path, generator: Generator, cfg: DictConfig, place: str, account: Account) -> None:
    model, tokenizer = generator.model, generator.codec.tokenizer
    full = not adapters.is_adapter(cfg.peft)
    settings = generator.config()
    kept, model.generation_config = model.generation_config, settings
    try:
        # "auto" may add the whole embedding to an adapter, and asks the hub for it; rows that were trained are saved anyway
        model.save_pretrained(folder, **({} if full else {"save_embedding_layers": False}))
    finally:
        model.generation_config = kept
    settings.save_pretrained(folder)
    template, tokenizer.chat_template = tokenizer.chat_template, generator.codec.template.source
    tokenizer.save_pretrained(folder)
    tokenizer.chat_template = template
    (folder / "README.md").write_text(_card(cfg, place, account, full=full), encoding="utf-8")


def _card(cfg: DictConfig, place: str, account: Account, *, full: bool) -> str:
    kind = "full weights" if full else "LoRA adapter"
    summary = account.summary()
    head = {"base_model": cfg.model.path, "library_name": "transformers" if full else "peft", "tags": ["llmft"]}
    lines = [
        "---",
        *(f"{key}: {json.dumps(value)}" for key, value in head.items()),
        "---",
        f"# {cfg.data.name} on {cfg.model.name}",
        "",
        f"Fine-tuned with llmft: {kind} on top of `{place}`.",
        "",
        f"- data: `{summary['source']}`, {summary['kept']} of {summary['rows']} rows, SHA-256 `{summary['sha256']}`",
        f"- supervised tokens (all splits): {summary['supervised_tokens']:,}; trained on: {cfg.data.train_on}",
        f"- peft: {cfg.peft.name}; optimizer lr {cfg.optim.lr}; seed {cfg.seed}",
        "- the prompt is the tokenizer's chat template; use `apply_chat_template(..., add_generation_prompt=True)`",
        "",
        "The licence of the base model applies to these weights too.",
    ]
    return "\n".join(lines) + "\n"


def load_trained(folder: Path, cfg: DictConfig, auto_class: Any) -> tuple[Any, Any]:
    """Model and tokenizer of a run's ``model/``, on top of its backbone, as it was in training, where it holds an adapter."""
    tokenizer = backbone.load_tokenizer(str(folder), cfg.model)
    if not adapters.is_adapter(cfg.peft):
        return backbone.load_model(str(folder), cfg.model, auto_class), tokenizer
    from peft import PeftModel

    base = backbone.load_model(backbone.locate(cfg.model, auto_class), cfg.model, auto_class, cfg.peft)
    return PeftModel.from_pretrained(base, folder), tokenizer
