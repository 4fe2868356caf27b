"""What the base of a sweep's jobs answers: computed by the first job that needs it, read from a file by the others.

A file's name is a hash of all that decides its content: the weights of the base themselves, the rows, every setting of generation
and batching, the tokenizer, the versions of the libraries and of this code, and the machine. So a file is never out of date: what
differs in anything has another name.
"""

import hashlib
import json
import logging
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from llmft.data.tokenization.codec import Codec, EncodedExample
from llmft.models.forward import Forward
from llmft.models.peft.trainable import has_adapter
from llmft.runs.checkpoint_io import load_plain
from llmft.utils.device import hardware_name
from llmft.utils.errors import UserError
from llmft.utils.files import atomic_open
from llmft.utils.versions import git_revision, versions

log = logging.getLogger(__name__)

FOLDER = ".base"
# Prefix and suffix that peft gives the names of a base's weights.
OF_PEFT = ("base_model.model.", ".base_layer")


class BaseCache:
    """The results of the base in the folder of a sweep.

    Args:
        sweep: The folder of the sweep, which holds its jobs.
        job: Name of this job.
    """

    def __init__(self, sweep: Path, job: str) -> None:
        self.folder, self.job = sweep / FOLDER, job

    def get(self, what: str, ingredients: Sequence[Any], compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What another job has computed, or else this one computes and keeps for the others.

        A job that another one computes the same for waits for it; a damaged file is computed again.

        Args:
            what: What it is, and how many, for the log.
            ingredients: All that decides the result, as plain values.
            compute: Makes a dict of plain values and tensors.
        """
        key = digest([what, *ingredients])
        file = self.folder / f"{key}.pt"
        with self._locked(key, what) as is_locked:
            if (found := _read(file, key)) is not None:
                log.info("%s from job %s (the same weights, rows and settings)", what, found["job"])
                return found["result"]
            result = compute()
            if is_locked:
                self._write(file, {"key": key, "job": self.job, "result": result})
        return result

    @contextmanager
    def _locked(self, key: str, what: str) -> Iterator[bool]:
        """Whether the lock of a key is held; it is not where the folder cannot be written to, or has no locks."""
        from filelock import FileLock, Timeout

        lock = FileLock(self.folder / f"{key}.lock")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                log.info("%s: waiting for another job, which computes the same", what)
                lock.acquire()
        except (OSError, NotImplementedError):
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def _write(self, file: Path, value: dict[str, Any]) -> None:
        try:
            with atomic_open(file, "wb", shared=True) as out:
                torch.save(value, out)
        except (OSError, RuntimeError) as error:  # torch wraps some of the system's errors
            log.warning("%s: cannot be kept for the other jobs (%s)", file.name, error)


def base_ingredients(
    forward: Forward, codec: Codec, rows: Sequence[EncodedExample], settings: Sequence[Any], device: Any
) -> list[Any]:
    """All that decides what a base computes for rows.

    Args:
        forward: The model: the base, or an adapter on it.
        codec: Encodes prompts and decodes answers.
        rows: Encoded examples.
        settings: Of generation and batching.
        device: That it computes on.
    """
    model, kernels, tokenizer = forward.model, forward.kernels, codec.tokenizer
    config = {name: value for name, value in model.config.to_dict().items() if name != "_name_or_path"}
    text = getattr(tokenizer, "backend_tokenizer", None)
    return [
        fingerprint(model),
        [type(forward).__name__, config, model.config._attn_implementation, model.generation_config.to_dict()],
        [kernels.plain, kernels.by_length, kernels.varlen, kernels.flash, kernels.flex, kernels.shared_prefix],
        [text.to_str() if text else tokenizer.get_vocab(), tokenizer.pad_token_id, sorted(codec.stop_ids)],
        [codec.template.saved, type(codec).__name__],
        [[row.input_ids, row.labels, row.prompt_length] for row in rows],
        list(settings),
        [versions(), git_revision()],
        [platform.machine(), str(device), hardware_name(torch.device(device)), torch.get_num_threads()],
    ]


def fingerprint(model: Any) -> str:
    """SHA-256 of the weights and buffers of a base; of an adapter's model without the adapter. The dtypes count too."""
    found = hashlib.sha256()
    only_frozen = has_adapter(model)
    for name, tensor in sorted(model.state_dict(keep_vars=True).items()):
        if not isinstance(tensor, torch.Tensor) or (only_frozen and tensor.requires_grad) or "lora_" in name:
            continue
        for part in OF_PEFT:
            name = name.replace(part, "")
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def digest(value: Any) -> str:
    """SHA-256 of plain values."""
    text = json.dumps(value, sort_keys=True, default=str, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _read(file: Path, key: str) -> dict[str, Any] | None:
    """A complete file of this key; None without one."""
    if not file.is_file():
        return None
    try:
        found = load_plain(file)
    except UserError as error:
        log.warning("%s; it is computed again", error)
        return None
    return found if found.get("key") == key and isinstance(found.get("result"), dict) else None
