"""An exported folder, opened again: ``passport.json`` read as untrusted, and the model of its PyTorch forms."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from llmft.config.groups import group_config, prompt_config
from llmft.config.schema.generation import Generation
from llmft.config.schema.model import Model
from llmft.config.validate import check_section
from llmft.data.sources import HUB_ID
from llmft.models.backbone import load, untrusted, vocabulary
from llmft.models.backbone.open import Backbone
from llmft.runs.find import PASSPORT
from llmft.runtimes.open import form_of
from llmft.runtimes.pytorch import with_adapter
from llmft.runtimes.runtime import Form
from llmft.utils.errors import UserError
from llmft.utils.paths import user_path

LANGUAGES = ("source_language", "target_language")
REASONING = ("keep", "drop", "template")
TORCH_FORMS = ("merged", "adapter")


@dataclass(frozen=True)
class ExportedFolder:
    """An exported folder.

    Attributes:
        folder: The folder.
        form: By its files.
        dtype: dtype of the weights.
        family: ``seq2seq`` or ``causal``.
        base: The keys of ``model`` that load the base on any machine; empty if it was a local folder.
        system: The system prompt that was trained with.
        reasoning: ``data.reasoning`` of the training.
        languages: Language codes of a translation model, by the keys of ``model``.
        generation: The generation settings of the run.
        identity: What tells this model from others, for resumed answers.
        notice: What the data set says about the use of its models.
        started: When the run was started, by which it is found again.
    """

    folder: Path
    form: Form
    dtype: str
    family: str
    base: dict[str, str]
    system: str | None
    reasoning: str
    languages: dict[str, str]
    generation: Generation
    identity: list[Any]
    notice: str | None
    started: str | None

    @property
    def weights(self) -> str:
        """The format of the weights: a quantization, or their dtype."""
        return str(self.identity[-1] or self.dtype)

    @cached_property
    def model(self) -> Model:
        """A model section that loads it; nothing of the folder decides about code."""
        dtype = self.dtype if self.dtype in ("float32", "bfloat16") else "float32"
        source = self._source()
        if not source["path"]:
            raise UserError(
                f"run={self.folder}: its base was a local model; write its folder into base_model_name_or_path of "
                "adapter_config.json, or use the run itself"
            )
        given: dict[str, Any] = {"name": "exported", **source, "dtype": dtype, **self.languages}
        shipped: Any = OmegaConf.to_container(group_config("model", f"_{self.family}"))
        return check_section({**shipped, **given}, Model, "model")

    def _source(self) -> dict[str, str]:
        """The keys of ``model`` that load the weights: the folder, or the base that an adapter was trained on."""
        if self.form == "merged":
            return {"path": str(self.folder)}
        return self.base or {"path": untrusted.base_of_adapter(self.folder)}


def open_exported(path: str) -> ExportedFolder | None:
    """The exported folder that ``run=`` names; None if it is none.

    Raises:
        UserError: Its ``passport.json`` was not written by llmft, or has been changed.
    """
    folder = user_path(path)
    if not (folder / PASSPORT).is_file():
        return None
    found = untrusted.json_object(folder / PASSPORT)
    generation = found.get("generation")
    languages: dict[str, Any] = {name: found[name] for name in LANGUAGES if found.get(name)}
    texts = [found.get("system") or "", found.get("notice") or "", *languages.values()]
    base = found.get("base") or {}
    faults = {
        "family": found.get("family") not in ("seq2seq", "causal"),
        "reasoning": found.get("reasoning") not in REASONING,
        "base": bool(base) and not _is_portable(base),
        "generation": not isinstance(generation, dict),
        "system": not all(isinstance(text, str) for text in texts),
        "run": not isinstance(found.get("run"), dict),
    }
    if wrong := [name for name, bad in faults.items() if bad]:
        raise UserError(f"{folder / PASSPORT}: {wrong[0]} is not as llmft writes it")
    assert isinstance(generation, dict)
    started = found["run"].get("started")
    return ExportedFolder(
        folder=folder.absolute(),
        form=form_of(folder),
        dtype=str(found.get("dtype")),
        family=found["family"],
        base=base,
        system=found.get("system") or None,
        reasoning=found["reasoning"],
        languages=languages,
        # the weights that were exported have a dtype of their own
        generation=check_section({**generation, "dtype": "auto"}, Generation, "generation"),
        identity=[
            json.dumps(found["run"], sort_keys=True),
            found.get("form"),
            found.get("dtype"),
            found.get("quantize"),
        ],
        notice=found.get("notice") or None,
        started=started if isinstance(started, str) else None,
    )


def _is_portable(base: Any) -> bool:
    """Whether a base is named as llmft names one: on the Hub, of a wheel, or tiny; never a path of this machine."""
    if not isinstance(base, dict) or not base.keys() <= {"path", "revision", "gguf_file", "sha256"}:
        return False
    path = base.get("path")
    if not all(isinstance(value, str) for value in base.values()) or not path:
        return False
    return path.startswith(("pypi:", "tiny:")) or (HUB_ID.match(path) is not None and not user_path(path).exists())


class ExportedBackbone(Backbone):
    """The model of an exported folder with PyTorch weights: full ones, or an adapter on the base that its config names.

    Args:
        exported: A folder of the forms merged or adapter.
    """

    def __init__(self, exported: ExportedFolder) -> None:
        super().__init__(exported.model, prompt=prompt_config("chat"), reasoning=exported.reasoning)
        self.exported = exported

    @cached_property
    def tokenizer(self) -> Any:
        """The exported tokenizer, whose chat template is the prompt that was trained with."""
        return load.load_tokenizer(str(self.exported.folder), self.model)

    def _ending_ids(self) -> list[int]:
        return vocabulary.ending_ids(str(self.exported.folder), None)

    def load(self) -> Any:
        """The exported model."""
        base = super().load()
        return base if self.exported.form == "merged" else with_adapter(base, self.exported.folder, self.tokenizer)
