"""llama.cpp, through llama-cpp-python's functions of its C interface: the runtime of GGUF files."""

import contextlib
import ctypes
import importlib
import json
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llmft.data.records import Turn
from llmft.data.tokenization.traits import render
from llmft.runtimes.runtime import NotInstalledError
from llmft.utils.errors import UserError
from llmft.utils.text import printable

ADAPTER = "adapter.gguf"  # a LoRA adapter beside the GGUF file of its base
ERROR = 4  # GGML_LOG_LEVEL_ERROR
ROOM = 512  # the context grows in steps of this many tokens


def library() -> Any:
    """The module ``llama_cpp``, without its log lines on stderr.

    Raises:
        NotInstalledError: It is not installed.
    """
    try:
        llama_cpp: Any = importlib.import_module("llama_cpp")
    except ImportError:
        raise NotInstalledError(
            'llama-cpp-python is not installed: pip install "llmft[gguf]" builds it from source in about 8 minutes of one core'
        ) from None
    llama_cpp.llama_log_set(_quiet(llama_cpp), ctypes.c_void_p(0))
    return llama_cpp


def open_folder(folder: Path, *, dtype: str = "auto") -> "LlamaCppRuntime":
    """Open the GGUF file of a folder, with the adapter beside it if there is one.

    Args:
        folder: With one GGUF file of a model.
        dtype: ``auto``: keys and values are cached in float16, llama.cpp's default; otherwise in float32, to check the file.

    Raises:
        NotInstalledError: llama-cpp-python is not installed.
        UserError: The folder has no or several models, or llama.cpp cannot load it.
    """
    adapter = folder / ADAPTER
    return LlamaCppRuntime(model_file(folder), adapter if adapter.is_file() else None, exact=dtype != "auto")


def model_file(folder: Path) -> Path:
    """The GGUF file of the model in a folder.

    Raises:
        UserError: There is none, or several.
    """
    files = sorted(file for file in folder.glob("*.gguf") if file.name != ADAPTER)
    if len(files) != 1:
        raise UserError(f"{folder}: must hold one GGUF file of a model, and holds {len(files)}")
    return files[0]


class LlamaCppRuntime:
    """A GGUF file in llama.cpp, on the CPU.

    Args:
        file: The GGUF file.
        adapter: A GGUF file with a LoRA adapter, or None.
        exact: Cache keys and values in float32. llama.cpp's default, float16, rounds more than anything else in a float32 file.

    Raises:
        NotInstalledError: llama-cpp-python is not installed.
        UserError: llama.cpp cannot load a file.
    """

    def __init__(self, file: Path, adapter: Path | None = None, *, exact: bool = False) -> None:
        self.lib = lib = library()
        self.name = f"llama.cpp (llama-cpp-python {lib.__version__})"
        self.exact, self._size, self._context = exact, 0, None
        self._contexts: list[Any] = []
        lib.llama_backend_init()
        reason()  # forget errors of another file
        settings = lib.llama_model_default_params()
        settings.n_gpu_layers = 0
        self.model = lib.llama_model_load_from_file(str(file).encode(), settings)
        if not self.model:
            raise UserError(f"{file}: llama.cpp cannot load it{reason()}")
        weakref.finalize(self, _free, lib, self.model, self._contexts)
        self.adapter = lib.llama_adapter_lora_init(self.model, str(adapter).encode()) if adapter else None
        if adapter and not self.adapter:
            raise UserError(f"{adapter}: llama.cpp cannot load it as an adapter of {file.name}{reason()}")
        self.vocabulary = lib.llama_model_get_vocab(self.model)
        self.size = lib.llama_vocab_n_tokens(self.vocabulary)
        self.is_encoder_decoder = bool(lib.llama_model_has_encoder(self.model))
        self.stop_ids = frozenset(i for i in range(self.size) if lib.llama_vocab_is_eog(self.vocabulary, i))

    def prompt_ids(self, turns: Sequence[Turn], tools: Sequence[str] = ()) -> list[int]:
        """The template in the file's metadata, rendered and tokenized as ``llama-server`` does.

        A BOS or EOS that the vocabulary adds is first taken from the text (``common/chat.cpp``), and the names of control tokens
        become their ids.

        Raises:
            UserError: The file has no chat template, or the template fails.
        """
        lib, vocabulary = self.lib, self.vocabulary
        bos, eos = (self._piece(find(vocabulary)) for find in (lib.llama_vocab_bos, lib.llama_vocab_eos))
        source = self._template("tool_use") if tools else None
        source = source or self._template(None)
        if source is None:
            raise UserError(f"{self.name}: the GGUF file has no chat template")
        parsed = [json.loads(tool) for tool in tools] or None
        messages = [turn.message() for turn in turns]
        text = render(source, messages, {"bos_token": bos, "eos_token": eos}, parsed, generate=True)
        if lib.llama_vocab_get_add_bos(vocabulary):
            text = text.removeprefix(bos)
        if lib.llama_vocab_get_add_eos(vocabulary):
            text = text.removesuffix(eos)
        return self._tokenize(text)

    def decode(self, ids: Sequence[int]) -> str:
        """The text without control tokens."""
        array = (self.lib.llama_token * len(ids))(*ids)

        def write(buffer: Any, size: int) -> int:
            return self.lib.llama_detokenize(self.vocabulary, array, len(ids), buffer, size, False, False)

        return _filled(write, 16 * len(ids) + 16).decode(errors="replace") if ids else ""

    def logits(self, prompt: Sequence[int], answer: Sequence[int]) -> np.ndarray:
        """Logits [len(answer), V] of one pass."""
        self._reserve(len(prompt) + len(answer))
        if self.is_encoder_decoder:
            self._encode(prompt)
            return self._decode([self._start, *answer[:-1]], 0, len(answer))
        return self._decode([*prompt, *answer[:-1]], 0, len(answer))

    def generate(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[list[int]]:
        """One prompt after the other."""
        return [list(self._greedy(prompt, max_new_tokens)) for prompt in prompts]

    def _greedy(self, prompt: Sequence[int], limit: int) -> Iterator[int]:
        self._reserve(len(prompt) + limit)
        if self.is_encoder_decoder:
            self._encode(prompt)
            prompt = [self._start]
        scores = self._decode(prompt, 0, 1)
        for position in range(len(prompt), len(prompt) + limit):
            token = int(scores[-1].argmax())
            yield token
            if token in self.stop_ids or position + 1 == len(prompt) + limit:
                return
            scores = self._decode([token], position, 1)

    @property
    def _start(self) -> int:
        """The decoder's first id."""
        start = self.lib.llama_model_decoder_start_token(self.model)
        return start if start >= 0 else self.lib.llama_vocab_bos(self.vocabulary)

    def _reserve(self, tokens: int) -> None:
        """An empty context for this many tokens."""
        lib = self.lib
        if self._context and tokens <= self._size:
            lib.llama_memory_clear(lib.llama_get_memory(self._context), True)
            return
        if self._context:
            lib.llama_free(self._contexts.pop())
        self._size = -(-tokens // ROOM) * ROOM
        settings = lib.llama_context_default_params()
        settings.n_ctx = settings.n_batch = self._size
        settings.n_ubatch = self._size if self.is_encoder_decoder else ROOM  # an encoder takes a prompt at once
        settings.n_threads = settings.n_threads_batch = _threads()
        if self.exact:
            settings.type_k = settings.type_v = lib.GGML_TYPE_F32
            settings.flash_attn_type = 0  # LLAMA_FLASH_ATTN_TYPE_DISABLED: it computes in float16
        self._context = lib.llama_init_from_model(self.model, settings)
        if not self._context:
            raise UserError(f"{self.name}: no context for {self._size:,} tokens")
        self._contexts.append(self._context)
        if self.adapter:
            adapters = (lib.llama_adapter_lora_p_ctypes * 1)(self.adapter)
            lib.llama_set_adapters_lora(self._context, adapters, 1, (ctypes.c_float * 1)(1.0))

    def _encode(self, ids: Sequence[int]) -> None:
        with self._batch(ids, 0, 0) as batch:
            if self.lib.llama_encode(self._context, batch):
                raise UserError(f"{self.name}: cannot encode a prompt of {len(ids):,} tokens")

    def _decode(self, ids: Sequence[int], position: int, last: int) -> np.ndarray:
        """Logits [last, V] at the last positions of ``ids``, which follow what the context holds."""
        with self._batch(ids, position, last) as batch:
            if self.lib.llama_decode(self._context, batch):
                raise UserError(f"{self.name}: cannot decode {len(ids):,} tokens")
            found = [self.lib.llama_get_logits_ith(self._context, i) for i in range(len(ids) - last, len(ids))]
            return np.stack([np.ctypeslib.as_array(row, shape=(self.size,)).copy() for row in found])

    @contextlib.contextmanager
    def _batch(self, ids: Sequence[int], position: int, last: int) -> Iterator[Any]:
        batch = self.lib.llama_batch_init(len(ids), 0, 1)
        try:
            batch.n_tokens = len(ids)
            for i, token in enumerate(ids):
                batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, position + i, 1
                batch.seq_id[i][0], batch.logits[i] = 0, int(i >= len(ids) - last)
            yield batch
        finally:
            self.lib.llama_batch_free(batch)

    def _template(self, name: str | None) -> str | None:
        found = self.lib.llama_model_chat_template(self.model, name.encode() if name else None)
        return found.decode() if found else None

    def _piece(self, token: int) -> str:
        """The text of a special token; empty if there is none."""
        return self.lib.llama_vocab_get_text(self.vocabulary, token).decode() if token >= 0 else ""

    def _tokenize(self, text: str) -> list[int]:
        raw = text.encode()
        array = (self.lib.llama_token * (len(raw) + 8))()  # no token is shorter than a byte
        count = self.lib.llama_tokenize(self.vocabulary, raw, len(raw), array, len(array), True, True)
        return list(array[:count])


def _filled(write: Any, size: int) -> bytes:
    """The bytes that a function of C writes into a buffer; it returns their number, negative if they do not fit."""
    buffer = ctypes.create_string_buffer(size)
    count = write(buffer, size)
    if count < 0:
        return _filled(write, -count)
    return buffer.raw[:count]


def _free(lib: Any, model: Any, contexts: list[Any]) -> None:
    for context in contexts:
        lib.llama_free(context)
    lib.llama_model_free(model)  # and its adapters


def _threads() -> int:
    import torch

    return torch.get_num_threads()  # follows OMP_NUM_THREADS


_callbacks: list[Any] = []  # C keeps a pointer to it
_errors: list[str] = []


def _quiet(lib: Any) -> Any:
    def keep(level: int, text: bytes, _: Any) -> None:
        if level == ERROR:
            _errors.append(text.decode(errors="replace"))

    if not _callbacks:
        _callbacks.append(lib.llama_log_callback(keep))
    return _callbacks[0]


def reason() -> str:
    """The first error that llama.cpp has logged since the last call, in brackets; empty if there is none."""
    found = f" ({printable(_errors[0].strip())[:300]})" if _errors else ""
    _errors.clear()
    return found
