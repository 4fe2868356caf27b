"""``form=gguf``: a GGUF file for llama.cpp, Ollama and LM Studio, and a ``Modelfile``."""

import json
import re
import tempfile
from pathlib import Path
from typing import Any

from llmft.config.schema import ExportConfig
from llmft.data.tokenization.codec import Codec
from llmft.data.tokenization.traits import USER
from llmft.export.forms import merged
from llmft.export.forms.source import Source, unquantized
from llmft.export.llama_cpp import archive, convert, quantize
from llmft.export.llama_cpp.modelfile import Modelfile
from llmft.export.llama_cpp.turn_shape import ShapeError, TurnShape, turn_shape
from llmft.models.backbone.open import TrainedBackbone
from llmft.runtimes.llama_cpp import ADAPTER, library

# The converter's --outtype; its "auto" would make float16 of float32.
OUTTYPES = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
# The converter rounds to this one itself; all others need llama-cpp-python.
BY_CONVERTER = "q8_0"
ADDED = ("tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token")
MIN_CONTEXT = 4096  # Ollama's default
# In training, the system prompt for a template without a system role stands before the first question, and an empty line
# between them. llama.cpp would write no empty line (common/chat.cpp, system_message_not_supported).
SYSTEM_FIRST = (
    "{%- if messages[0]['role'] == 'system' and messages[1:] -%}"
    "{%- set first = {'role': 'user', 'content': messages[0]['content'] + '\\n\\n' + messages[1]['content']} -%}"
    "{%- set messages = [first] + messages[2:] -%}"
    "{%- endif -%}"
)


def prepare(settings: ExportConfig) -> Path:
    """The folder of the converter.

    Raises:
        UserError: It is not on this machine, or llama-cpp-python is not installed and the quantization needs it.
    """
    if settings.quantization_of("gguf") not in (None, BY_CONVERTER):
        library()
    return archive.converter_folder(settings.gguf_archive, download=settings.download)


def write(source: Source, folder: Path) -> None:
    """Write the GGUF file and the Modelfile.

    Raises:
        UserError: As of ``prepare``, or llama.cpp cannot run the model.
    """
    tools = prepare(source.settings)
    codec = TrainedBackbone(source.model, source.cfg).codec
    if source.settings.gguf_adapter:
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            _write_base(source, Path(scratch))
            convert.convert_adapter(tools, source.model, Path(scratch), folder / ADAPTER)
            file = _write_model(source, codec, tools, Path(scratch), folder)
    else:
        assert source.merged
        file = _write_model(source, codec, tools, source.merged, folder)
    if source.cfg.model.family == "causal":  # Ollama runs no encoder-decoder
        (folder / "Modelfile").write_text(_modelfile(source, codec, file).text(), encoding="utf-8")


def _write_base(source: Source, folder: Path) -> None:
    """The base model of an adapter, with the tokenizer and the chat template of the training."""
    base = TrainedBackbone(source.model, unquantized(source.cfg, source.dtype)).load_base()
    merged.write(base, source.model, folder, source.dtype, source.settings.shard_size)


def _write_model(source: Source, codec: Codec, tools: Path, weights: Path, folder: Path) -> Path:
    """Write the GGUF file of a folder with full weights."""
    settings = source.settings
    kind = settings.quantization_of("gguf")
    outtype = kind if kind == BY_CONVERTER else OUTTYPES[source.dtype]
    file = folder / f"{_slug(source.cfg.model.name)}-{(kind or outtype).upper()}.gguf"
    title = settings.name or f"{source.cfg.data.name} on {source.cfg.model.name}"
    by_llama_cpp = kind if kind != BY_CONVERTER else None
    converted = file.with_suffix(".wide") if by_llama_cpp else file
    convert.convert_model(tools, weights, converted, outtype, title, _metadata(codec))
    if by_llama_cpp:
        quantize.quantize(converted, file, by_llama_cpp)
        converted.unlink()
    return file


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "-", text).strip("-.") or "model"


def _metadata(codec: Codec) -> dict[str, bool | int | str]:
    """What the converter would take from elsewhere than the trained prompts: BOS and EOS around them, stop token, template."""
    tokenizer, template = codec.tokenizer, codec.template
    found: dict[str, bool | int | str] = dict(zip(ADDED, _added(codec), strict=True))
    if codec.stop_id != tokenizer.eos_token_id:
        found["tokenizer.ggml.eot_token_id"] = codec.stop_id
    if not template.takes_system:
        found["tokenizer.chat_template"] = SYSTEM_FIRST + template.source
    return found


def _added(codec: Codec) -> tuple[bool, bool]:
    """Whether llama.cpp adds the BOS and the EOS to a prompt: the tokenizer does, and the trained prompts have them."""
    tokenizer = codec.tokenizer
    text = codec.template.traits.text([USER], generate=True)
    ids = tokenizer("Hi")["input_ids"]
    bos, eos = tokenizer.bos_token, tokenizer.eos_token
    return (
        bool(bos) and text.startswith(bos) and ids[0] == tokenizer.bos_token_id,
        bool(eos) and text.endswith(eos) and ids[-1] == tokenizer.eos_token_id,
    )


def _modelfile(source: Source, codec: Codec, file: Path) -> Modelfile:
    generation: dict[str, Any] = json.loads((source.model / "generation_config.json").read_text(encoding="utf-8"))
    shape, reason = _shape(codec)
    ends = generation.get("eos_token_id")
    ends = ends if isinstance(ends, list) else [ends]
    data = source.cfg.data
    return Modelfile(
        model=file.name,
        adapter=ADAPTER if source.settings.gguf_adapter else None,
        shape=shape,
        reason=reason,
        system=data.system,
        stops=codec.tokenizer.convert_ids_to_tokens([i for i in ends if i is not None]),
        generation=generation,
        context=max(MIN_CONTEXT, (data.max_prompt_tokens or 0) + (data.max_answer_tokens or 0)),
    )


def _shape(codec: Codec) -> tuple[TurnShape | None, str]:
    """The prompt template for Ollama, without the BOS if llama.cpp adds it; or why there is none."""
    try:
        shape = turn_shape(codec.template.traits)
        return (shape.without_bos(codec.tokenizer.bos_token) if _added(codec)[0] else shape), ""
    except ShapeError as error:
        return None, str(error)
