"""The section "Use" of a model card of ``form=onnx``: code that runs as it stands in the folder of the card."""

from collections.abc import Iterator
from pathlib import Path

from llmft.config.schema import TrainConfig
from llmft.export.use import lines
from llmft.runtimes.onnx import GENAI_CONFIG

PLAIN_NOTE = "The graph computes the logits of whole sequences. It has no KV cache, so it is no fast decoder.\n"


def section(folder: Path, cfg: TrainConfig, hub: str | None) -> str:
    """The section as Markdown.

    Args:
        folder: The exported folder.
        cfg: The run's config.
        hub: ``owner/name`` if it is pushed.
    """
    cached = (folder / GENAI_CONFIG).is_file()
    code = [*_head(cfg, hub, cached=cached), *(_generate() if cached else _logits(cfg))]
    return "\n".join(["```python", *code, "```", "", "" if cached else PLAIN_NOTE])


def _head(cfg: TrainConfig, hub: str | None, *, cached: bool) -> Iterator[str]:
    yield "import numpy as np"
    yield "import onnxruntime_genai" if cached else "import onnxruntime"
    yield from ["from huggingface_hub import snapshot_download"] if hub else []
    yield "from transformers import AutoTokenizer"
    yield ""
    yield lines.folder(hub)
    yield "tokenizer = AutoTokenizer.from_pretrained(folder)"
    yield lines.messages(cfg)
    yield lines.PROMPT_IDS
    yield ""


def _generate() -> Iterator[str]:
    yield "model = onnxruntime_genai.Model(folder)"
    yield "params = onnxruntime_genai.GeneratorParams(model)"
    yield "params.set_search_options(max_length=len(ids) + 100, do_sample=False)"
    yield "generator = onnxruntime_genai.Generator(model, params)"
    yield "generator.append_tokens(np.array([ids], dtype=np.int32))"
    yield "while not generator.is_done():"
    yield "    generator.generate_next_token()"
    yield "print(tokenizer.decode(generator.get_sequence(0)[len(ids) :], skip_special_tokens=True))"


def _logits(cfg: TrainConfig) -> Iterator[str]:
    yield 'session = onnxruntime.InferenceSession(f"{folder}/model.onnx")'
    yield 'inputs = {"input_ids": np.array([ids]), "attention_mask": np.ones((1, len(ids)), dtype=np.int64)}'
    if cfg.model.family == "seq2seq":
        yield 'start = int(session.get_modelmeta().custom_metadata_map["decoder_start_token_id"])'
        yield 'inputs["decoder_input_ids"] = np.array([[start]])'
    yield 'logits = session.run(["logits"], inputs)[0]  # [1, tokens, vocabulary]'
    yield "print(tokenizer.decode([logits[0, -1].argmax()]))"
