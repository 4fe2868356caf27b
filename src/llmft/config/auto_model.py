"""``model=auto``: the family of a model from its ``config.json``, before anything else is checked.

The layers for LoRA are found in the model itself (``models.peft.lora.attention_layers``), and the prompt is ``prompt=auto``:
the tokenizer's chat template, else a text template.
"""

import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from llmft.utils.errors import UserError
from llmft.utils.paths import user_path
from llmft.utils.text import one_line

TARGETS = {"causal": "llmft.models.causal.CausalForward", "seq2seq": "llmft.models.seq2seq.Seq2SeqForward"}
LANGUAGES = ("source_language", "target_language")


def resolve_model(cfg: DictConfig) -> None:
    """Replace ``model.family=auto`` by the family of the model, in place.

    Of a Hub id, ``config.json`` is downloaded (to the cache of huggingface_hub, where loading finds it again).

    Args:
        cfg: The config of a command.

    Raises:
        UserError: There is no ``config.json``, or it is of an adapter.
    """
    model = cfg.get("model")
    if not isinstance(model, DictConfig) or model.get("family") != "auto":
        return
    missing = OmegaConf.is_missing(model, "path")  # the schema says so
    found = {} if missing else read_config(str(model.path), model.get("revision"))
    family = "seq2seq" if found.get("is_encoder_decoder") else "causal"
    with open_dict(model):
        model.family, model._target_ = family, TARGETS[family]
        for key in LANGUAGES if family == "causal" else ():
            if model.get(key) is None:
                model.pop(key, None)


def read_config(path: str, revision: str | None) -> dict[str, Any]:
    """The ``config.json`` of a model, of a tiny one the part that matters here.

    Args:
        path: ``model.path``.
        revision: ``model.revision``.

    Raises:
        UserError: There is no ``config.json``, or it is of an adapter.
    """
    kind, _, rest = path.partition(":")
    if kind == "tiny" and rest:
        return {"is_encoder_decoder": True, "relative_attention_num_buckets": 32} if rest == "t5" else {}
    folder = user_path(path)
    file = folder / "config.json" if folder.is_dir() else _downloaded(path, revision)
    if not file.is_file():
        adapter = (folder / "adapter_config.json").is_file()
        way_out = "it is an adapter: pass its base as model.path, and peft.adapter" if adapter else "set model=NAME"
        raise UserError(f"model=auto: {folder} has no config.json; {way_out}")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"model=auto: {file} cannot be read ({one_line(error)})") from None
    return found if isinstance(found, dict) else {}


def _downloaded(path: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(path, "config.json", revision=revision))
    except Exception as error:  # no such id, no network, no access
        raise UserError(
            f"model=auto: model.path={path} is no folder, and its config.json could not be downloaded ({one_line(error)}); "
            "offline, pass model.path=FOLDER"
        ) from None
