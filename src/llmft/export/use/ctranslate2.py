"""The code of a model card of ``form=ctranslate2``."""

from collections.abc import Iterator

from llmft.config.schema import TrainConfig
from llmft.export.use import lines


def code(cfg: TrainConfig, hub: str | None) -> str:
    """Python that loads the export and answers a question.

    Args:
        cfg: The run's config.
        hub: ``owner/name`` if it is pushed.
    """
    return "\n".join(_lines(cfg, hub))


def _lines(cfg: TrainConfig, hub: str | None) -> Iterator[str]:
    seq2seq = cfg.model.family == "seq2seq"
    yield "import ctranslate2"
    yield "from transformers import AutoTokenizer, GenerationConfig"
    if hub:
        yield "from huggingface_hub import snapshot_download"
    yield ""
    yield lines.folder(hub)
    yield "tokenizer = AutoTokenizer.from_pretrained(folder)"
    yield f"model = ctranslate2.{'Translator' if seq2seq else 'Generator'}(folder)"
    yield "generation = GenerationConfig.from_pretrained(folder)"
    yield ""
    yield lines.messages(cfg)
    yield lines.PROMPT_IDS
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
