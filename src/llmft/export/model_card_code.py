"""The code of a model card: it runs as it stands, in the folder of the card or with its id on the Hub."""

import json
from collections.abc import Iterator

from llmft.config.schema import TrainConfig
from llmft.export.base_model import local_name, published_id


def code(cfg: TrainConfig, form: str, hub: str | None) -> str:
    """Python that loads the export and answers a question.

    Args:
        cfg: The run's config.
        form: The form of the export.
        hub: ``owner/name`` if it is pushed.
    """
    if form == "ctranslate2":
        return "\n".join(_ctranslate2(cfg, hub))
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


def _ctranslate2(cfg: TrainConfig, hub: str | None) -> Iterator[str]:
    seq2seq = cfg.model.family == "seq2seq"
    yield "import ctranslate2"
    yield "from transformers import AutoTokenizer, GenerationConfig"
    if hub:
        yield "from huggingface_hub import snapshot_download"
    yield ""
    yield f"folder = snapshot_download({json.dumps(hub)})" if hub else 'folder = "."  # the folder of this file'
    yield "tokenizer = AutoTokenizer.from_pretrained(folder)"
    yield f"model = ctranslate2.{'Translator' if seq2seq else 'Generator'}(folder)"
    yield "generation = GenerationConfig.from_pretrained(folder)"
    yield ""
    yield f"messages = [{_messages(cfg)}]"
    yield 'ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]'
    yield "tokens = tokenizer.convert_ids_to_tokens(ids)"
    stop = "end_token=generation.eos_token_id"
    if seq2seq:
        yield "forced = [i for i in [generation.forced_bos_token_id] if i is not None]"
        yield "prefix = [tokenizer.convert_ids_to_tokens(forced)]"
        length = "beam_size=1, max_decoding_length=generation.max_new_tokens"
        yield f"result = model.translate_batch([tokens], target_prefix=prefix, {length}, {stop})"
        yield "answer = tokenizer.convert_tokens_to_ids(result[0].hypotheses[0])"
    else:
        length = "max_length=generation.max_new_tokens, include_prompt_in_result=False"
        yield f"result = model.generate_batch([tokens], {length}, {stop})"
        yield "answer = result[0].sequences_ids[0]"
    yield "print(tokenizer.decode(answer, skip_special_tokens=True))"


def _messages(cfg: TrainConfig) -> str:
    system = f'{{"role": "system", "content": {json.dumps(cfg.data.system)}}}, ' if cfg.data.system else ""
    return f'{system}{{"role": "user", "content": "What is a llama?"}}'


def _answer(cfg: TrainConfig) -> Iterator[str]:
    behind = "" if cfg.model.family == "seq2seq" else '[inputs["input_ids"].shape[1] :]'
    yield ""
    yield f"messages = [{_messages(cfg)}]"
    yield 'inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")'
    yield f"print(tokenizer.decode(model.generate(**inputs)[0]{behind}, skip_special_tokens=True))"
