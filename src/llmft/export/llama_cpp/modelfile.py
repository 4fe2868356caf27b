r"""Write a ``Modelfile``, from which Ollama creates a model: GGUF file, prompt template, system prompt, stop tokens, parameters.

Format: https://docs.ollama.com/modelfile. A text stands between ``\"\"\"``, which nothing escapes.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmft.export.llama_cpp.turn_shape import TurnShape, go_template

QUOTES = '"""'
TOP_K = 50  # transformers' default, where a run samples without naming it; Ollama's is 40
# Keys of GenerationConfig that have the same name in a Modelfile.
SAMPLING = ("temperature", "top_k", "top_p", "min_p", "typical_p")
# What does not decide about tokens, or is written in another way.
EXPRESSED = {
    *SAMPLING, "max_new_tokens", "do_sample", "repetition_penalty", "bos_token_id", "eos_token_id", "pad_token_id",
    "decoder_start_token_id", "use_cache", "transformers_version", "_from_model_config", "output_attentions",
    "output_hidden_states",
}  # fmt: skip
NEUTRAL = {"num_beams": 1, "no_repeat_ngram_size": 0, "max_length": None}


@dataclass(frozen=True)
class Modelfile:
    """What goes into a Modelfile.

    Attributes:
        model: Name of the GGUF file, in the same folder.
        adapter: Name of a GGUF file with a LoRA adapter, or None.
        shape: The prompt template; None if constant texts between the turns cannot express it.
        reason: Why there is no shape.
        system: The system prompt of the run.
        stops: Stop tokens as text.
        generation: Keys of GenerationConfig.
        context: Tokens of prompt and answer together. Ollama's default is 4096, and it cuts a longer prompt without a word.
    """

    model: str
    adapter: str | None
    shape: TurnShape | None
    reason: str
    system: str | None
    stops: Sequence[str]
    generation: Mapping[str, Any]
    context: int

    def text(self) -> str:
        """The file's content."""
        return "\n".join([*self._head(), *self._template(), *self._system(), *self._parameters()]) + "\n"

    def _head(self) -> Iterator[str]:
        yield "# ollama create NAME --file Modelfile"
        yield f"FROM ./{self.model}"
        if self.adapter:
            yield f"ADAPTER ./{self.adapter}"

    def _template(self) -> Iterator[str]:
        if self.shape is None:
            yield f"# no TEMPLATE: Ollama's syntax cannot express the trained prompt template ({self.reason})."
            yield "# Prompts would differ from training: use llama.cpp or LM Studio, which read the template in the GGUF file."
            return
        if self.shape.strips:
            yield "# The trained template strips white space around a turn; Ollama cannot, so send turns without any."
        yield f"TEMPLATE {QUOTES}{go_template(self.shape)}{QUOTES}"

    def _system(self) -> Iterator[str]:
        if self.system and QUOTES not in self.system:
            # no quotation mark may touch the closing ones
            yield f"SYSTEM {QUOTES}{self.system}{QUOTES}" if self.system[-1] != '"' else f"SYSTEM {self.system}"
        elif self.system:
            yield "# no SYSTEM: the system prompt of the run holds three quotation marks, which nothing escapes here"

    def _parameters(self) -> Iterator[str]:
        settings = self.generation
        for stop in self.stops:
            yield f"PARAMETER stop {_quoted(stop)}"
        yield from _sampling(settings)
        penalty = settings.get("repetition_penalty") or 1.0
        yield f"PARAMETER repeat_penalty {penalty}"  # Ollama's default changes greedy answers
        if penalty != 1.0:
            yield "PARAMETER repeat_last_n -1"
        if limit := settings.get("max_new_tokens"):
            yield f"PARAMETER num_predict {limit}"
        yield f"PARAMETER num_ctx {self.context}"
        for name, value in settings.items():
            if name not in EXPRESSED and value is not None and NEUTRAL.get(name, ...) != value:
                yield f"# not in Ollama: {name}={json.dumps(value)}"


def _sampling(settings: Mapping[str, Any]) -> Iterator[str]:
    if not settings.get("do_sample"):
        yield "PARAMETER temperature 0"
        return
    values = {"temperature": 1.0, "top_k": TOP_K, "top_p": 1.0, "min_p": 0.0}
    values |= {name: settings[name] for name in SAMPLING if settings.get(name) is not None}
    for name, value in values.items():
        yield f"PARAMETER {name} {value}"


def _quoted(text: str) -> str:
    return f"{QUOTES}{text}{QUOTES}" if '"' in text else f'"{text}"'
