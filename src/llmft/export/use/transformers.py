"""The code of a model card of the forms merged and adapter."""

import json
from collections.abc import Iterator

from llmft.config.schema import TrainConfig
from llmft.export.base_model import local_name, published_id
from llmft.export.use import lines


def code(cfg: TrainConfig, form: str, hub: str | None) -> str:
    """Python that loads the export and answers a question.

    Args:
        cfg: The run's config.
        form: ``merged`` or ``adapter``.
        hub: ``owner/name`` if it is pushed.
    """
    return "\n".join([*_load(cfg, form, hub), *_answer(cfg)])


def _load(cfg: TrainConfig, form: str, hub: str | None) -> Iterator[str]:
    auto = "AutoModelForSeq2SeqLM" if cfg.model.family == "seq2seq" else "AutoModelForCausalLM"
    if form == "adapter":
        yield "from peft import PeftModel"
    yield f"from transformers import {auto}, AutoTokenizer" + (", GenerationConfig" if form == "adapter" else "")
    yield ""
    yield f"folder = {json.dumps(hub or '.')}" + ("" if hub else "  # the folder of this file")
    yield "tokenizer = AutoTokenizer.from_pretrained(folder)"
    if form != "adapter":
        yield f"model = {auto}.from_pretrained(folder)"
        return
    public = published_id(cfg)
    revision = f", revision={json.dumps(cfg.model.revision)}" if public and cfg.model.revision else ""
    note = "" if public else "  # a local folder of the training; put its path here"
    yield f"model = {auto}.from_pretrained({json.dumps(public or local_name(cfg))}{revision}){note}"
    if cfg.model.new_tokens:
        yield "model.resize_token_embeddings(len(tokenizer))  # the adapter holds the rows of the new tokens"
    yield "model.generation_config = GenerationConfig.from_pretrained(folder)"
    yield "model = PeftModel.from_pretrained(model, folder)"


def _answer(cfg: TrainConfig) -> Iterator[str]:
    behind = "" if cfg.model.family == "seq2seq" else '[inputs["input_ids"].shape[1] :]'
    yield ""
    yield lines.messages(cfg)
    yield 'inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")'
    yield f"print(tokenizer.decode(model.generate(**inputs)[0]{behind}, skip_special_tokens=True))"
