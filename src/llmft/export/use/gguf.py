"""The section "Use" of the model card of a GGUF file: the commands of llama.cpp, Ollama and LM Studio."""

import shlex
from pathlib import Path

from llmft.config.schema import TrainConfig
from llmft.export.use import lines
from llmft.runtimes.llama_cpp import ADAPTER, model_file

EXACT = "--cache-type-k f32 --cache-type-v f32 --flash-attn off"


def section(folder: Path, cfg: TrainConfig) -> str:
    """The commands, to be run in the folder of the card.

    Args:
        folder: The written folder.
        cfg: The run's config.
    """
    file, adapter = model_file(folder).name, (folder / ADAPTER).is_file()
    if cfg.model.family == "seq2seq":
        return _encoder_decoder(file)
    lora = f" --lora {ADAPTER}" if adapter else ""
    name, system = shlex.quote(Path(file).stem.lower()), cfg.data.system
    told = f" --system-prompt {shlex.quote(system)}" if system else ""
    parts = [
        "llama.cpp (a chat; `llama-server` takes the same options), which reads the prompt template in the file:\n",
        _code(f"llama-cli --model {file}{lora} --jinja{told}"),
        "Ollama; the `Modelfile` has prompt template, system prompt, stop tokens and the run's generation settings:\n",
        _code(f"ollama create {name} --file Modelfile\nollama run {name}"),
        "LM Studio, which reads the prompt template in the file too:\n",
        _code(f"lms import {file}"),
        "Python, with llama-cpp-python:\n",
        _code(_python(file, cfg, adapter=adapter), "python"),
        f"llama.cpp caches keys and values in float16 unless told otherwise ({EXACT}), and samples in another order than "
        "transformers (temperature last), so that sampled answers have another distribution.\n",
    ]
    if adapter:
        parts.insert(
            0, f"`{ADAPTER}` is the trained LoRA adapter, `{file}` its base model, which all adapters of it share.\n"
        )
    return "\n".join(parts)


def _python(file: str, cfg: TrainConfig, *, adapter: bool) -> str:
    lora = f', lora_path="{ADAPTER}"' if adapter else ""
    return (
        "from llama_cpp import Llama\n\n"
        f'model = Llama("{file}"{lora}, n_ctx=4096, verbose=False)\n'
        f"{lines.messages(cfg)}\n"
        f"answer = model.create_chat_completion(messages, temperature=0, max_tokens={cfg.generation.max_new_tokens})\n"
        'print(answer["choices"][0]["message"]["content"])'
    )


def _encoder_decoder(file: str) -> str:
    return (
        "Of llama.cpp's tools, `llama-completion` runs an encoder-decoder; Ollama, LM Studio and `llama-server` do not:\n\n"
        + _code(f'llama-completion --model {file} --temp 0 --prompt "What is a llama?"')
        + "\nThe prompt must be written as in training; the prompt template is in the file's metadata.\n"
    )


def _code(text: str, language: str = "") -> str:
    return f"```{language}\n{text}\n```\n"
