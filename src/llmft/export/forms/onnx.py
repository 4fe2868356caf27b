"""``form=onnx``: a graph for ONNX Runtime in float32; with a KV cache for the architectures that onnxruntime-genai builds."""

import io
import json
import logging
import tempfile
import warnings
from contextlib import redirect_stderr, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from llmft.export.forms.source import Source, copy_rest
from llmft.models.backbone.special_ids import decoder_start_id
from llmft.runtimes.onnx import GENAI_CONFIG
from llmft.utils.errors import UserError
from llmft.utils.text import one_line

# Compared with the trained model in tests/integration/export/test_onnx.py; all others get a graph without a cache.
GENAI_ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3", "gemma")
PACKAGES = ("onnx", "onnxscript", "onnxruntime", "onnxruntime_genai")


def check(_: Any) -> None:
    """Check, before any work, that the packages are installed.

    Raises:
        UserError: One is missing.
    """
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise UserError(f'form=onnx: needs {", ".join(missing)}; pip install "llmft[onnx]"')


def write(source: Source, folder: Path) -> None:
    """Write the graph of the merged weights."""
    assert source.merged
    convert(source.merged, folder)


def convert(merged: Path, folder: Path) -> None:
    """Write the graph of a model folder.

    Args:
        merged: Full weights, tokenizer, chat template and generation config.
        folder: The target folder.

    Raises:
        UserError: The model cannot be exported.
    """
    config = json.loads((merged / "config.json").read_text(encoding="utf-8"))
    write_graph = _with_cache if has_cache(config) else _plain
    said = io.StringIO()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it lists packages that it does not find
    try:
        with redirect_stdout(said), redirect_stderr(said), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            write_graph(merged, folder)
    except Exception as error:  # errors of torch.export and of the builder have no common base
        raise UserError(f"form=onnx: the model cannot be exported ({one_line(error)})") from error
    copy_rest(merged, folder)


def has_cache(config: dict[str, Any]) -> bool:
    """Whether onnxruntime-genai builds the model, by its ``config.json``; its attention takes heads of a multiple of 16."""
    heads = config.get("num_attention_heads") or 1
    size = config.get("head_dim") or config.get("hidden_size", 0) // heads
    return config.get("model_type") in GENAI_ARCHITECTURES and size % 16 == 0


def _with_cache(merged: Path, folder: Path) -> None:
    from onnxruntime_genai.models import builder

    with tempfile.TemporaryDirectory(dir=folder.parent) as cache:
        where = (None, str(merged), str(folder), "fp32", "cpu", cache)
        builder.create_model(*where, **builder.parse_extra_options(*where, ["hf_token=false"]))
    file = folder / GENAI_CONFIG
    config = json.loads(file.read_text(encoding="utf-8"))
    generation = json.loads((merged / "generation_config.json").read_text(encoding="utf-8"))
    config["model"]["eos_token_id"] = generation["eos_token_id"]  # the builder takes the tokenizer's alone
    file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _plain(merged: Path, folder: Path) -> None:
    """Export with ``torch.onnx``: ids and mask (and decoder ids) -> ``logits``, for any batch and length."""
    import torch

    model = _load(merged)
    ids = torch.arange(10).reshape(2, 5) % model.config.vocab_size
    names, inputs = ["input_ids", "attention_mask"], [ids, torch.ones_like(ids)]
    if model.config.is_encoder_decoder:
        names, inputs = [*names, "decoder_input_ids"], [*inputs, ids[:, :3]]
    batch = torch.export.Dim("batch")
    lengths = [torch.export.Dim(name) for name in ("sequence", "sequence", "decoder_sequence")]
    shapes = tuple({0: batch, 1: length} for length in lengths[: len(names)])
    with torch.no_grad():
        program: Any = torch.onnx.export(
            _logits_of(model), tuple(inputs), dynamo=True, dynamic_shapes=shapes, input_names=names, output_names=["logits"],
            verbose=False,
        )  # fmt: skip
    if model.config.is_encoder_decoder:
        program.model.metadata_props["decoder_start_token_id"] = str(decoder_start_id(model))
    program.save(str(folder / "model.onnx"), external_data=True)


def _load(merged: Path) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, GenerationConfig

    config = AutoConfig.from_pretrained(merged, trust_remote_code=False)
    auto_class: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model = auto_class.from_pretrained(
        merged, dtype=torch.float32, attn_implementation="eager", use_safetensors=True, trust_remote_code=False
    )
    model.generation_config = GenerationConfig.from_pretrained(merged)
    return model.eval()


def _logits_of(model: Any) -> Any:
    """The model as a module that returns logits alone."""
    import torch

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any, decoder_input_ids: Any = None) -> Any:
            decoder = {} if decoder_input_ids is None else {"decoder_input_ids": decoder_input_ids}
            return self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False, **decoder).logits

    return Logits().eval()
