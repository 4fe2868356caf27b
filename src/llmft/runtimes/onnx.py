"""ONNX Runtime: plain graphs, and those of onnxruntime-genai with a KV cache."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llmft.runtimes.runtime import NotInstalledError
from llmft.runtimes.tokenizer_runtime import TokenizerRuntime, load_tokenizer
from llmft.utils.errors import UserError
from llmft.utils.text import one_line

GENAI_CONFIG = "genai_config.json"


class GraphRuntime(TokenizerRuntime):
    """A graph that computes the logits of whole sequences.

    It has no KV cache: ``generate`` computes all tokens again for each new one.

    Args:
        folder: With ``model.onnx``, tokenizer files and ``generation_config.json``.

    Raises:
        NotInstalledError: ONNX Runtime is not installed.
        UserError: It cannot load the folder.
    """

    def __init__(self, folder: Path) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise NotInstalledError('form=onnx: needs ONNX Runtime; pip install "llmft[onnx]"') from None
        self.name = f"ONNX Runtime {onnxruntime.__version__}"
        super().__init__(*load_tokenizer(folder))
        try:
            self.session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors derive from Exception alone
            raise UserError(f"{folder}: ONNX Runtime cannot load it ({one_line(error)})") from error
        self.start = self.session.get_modelmeta().custom_metadata_map.get("decoder_start_token_id")

    def logits(self, prompt: Sequence[int], answer: Sequence[int]) -> np.ndarray:
        """Logits [len(answer), V] of one run of the graph."""
        if self.start is None:
            ids = {"input_ids": [*prompt, *answer[:-1]]}
        else:
            ids = {"input_ids": prompt, "decoder_input_ids": [int(self.start), *answer[:-1]]}
        feed = {name: np.array([row], dtype=np.int64) for name, row in ids.items()}
        feed["attention_mask"] = np.ones_like(feed["input_ids"])
        found: Any = self.session.run(["logits"], feed)[0]
        return found[0, -len(answer) :].astype(np.float32)

    def generate(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[list[int]]:
        """One prompt after the other."""
        return [self._answer(prompt, max_new_tokens) for prompt in prompts]

    def _answer(self, prompt: Sequence[int], limit: int) -> list[int]:
        answer = list(self.forced) if self.start is not None else []
        while len(answer) < limit and not self.stop_ids.intersection(answer[-1:]):
            answer.append(int(self.logits(prompt, [*answer, 0])[-1].argmax()))
        return answer


class GenaiRuntime(TokenizerRuntime):
    """A model of onnxruntime-genai, with its KV cache; prompts are tokenized by the tokenizer of its folder.

    Args:
        folder: With ``genai_config.json``, the graph, tokenizer files and ``generation_config.json``.

    Raises:
        NotInstalledError: onnxruntime-genai is not installed.
        UserError: It cannot load the folder.
    """

    def __init__(self, folder: Path) -> None:
        try:
            import onnxruntime_genai
        except ImportError:
            raise NotInstalledError('form=onnx: needs onnxruntime-genai; pip install "llmft[onnx]"') from None
        self.name = f"onnxruntime-genai {onnxruntime_genai.__version__}"
        self.genai: Any = onnxruntime_genai
        super().__init__(*load_tokenizer(folder))
        try:
            self.model = self.genai.Model(str(folder))
        except Exception as error:  # its errors derive from Exception alone
            raise UserError(f"{folder}: {self.name} cannot load it ({one_line(error)})") from error

    def logits(self, prompt: Sequence[int], answer: Sequence[int]) -> np.ndarray:
        """Logits [len(answer), V] of one forward pass."""
        generator = self._started([*prompt, *answer[:-1]], 1)
        return np.array(generator.get_output("logits"), dtype=np.float32)[0, -len(answer) :]

    def generate(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[list[int]]:
        """One prompt after the other."""
        return [self._answer(prompt, max_new_tokens) for prompt in prompts]

    def _answer(self, prompt: Sequence[int], limit: int) -> list[int]:
        generator, answer = self._started(prompt, limit), []
        while len(answer) < limit and not self.stop_ids.intersection(answer[-1:]):
            generator.generate_next_token()
            answer.append(int(generator.get_next_tokens()[0]))
        return answer

    def _started(self, ids: Sequence[int], more: int) -> Any:
        params = self.genai.GeneratorParams(self.model)
        params.set_search_options(max_length=len(ids) + more, do_sample=False, num_beams=1)
        generator = self.genai.Generator(self.model, params)
        generator.append_tokens(np.array([ids], dtype=np.int32))
        return generator


def open_folder(folder: Path) -> GraphRuntime | GenaiRuntime:
    """Open a folder of ``form=onnx`` in the runtime that it was written for."""
    return GenaiRuntime(folder) if (folder / GENAI_CONFIG).is_file() else GraphRuntime(folder)
