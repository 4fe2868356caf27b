"""Open a pretrained model, or the one that a run has trained: path, config, tokenizer, codec, weights, each on first use."""

from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmft.config.schema import PreviewConfig, RunOrModel, TrainConfig
from llmft.config.schema.data import Data
from llmft.config.schema.model import Model, Prompt
from llmft.config.schema.peft import Peft
from llmft.data.tokenization.build import codec_for
from llmft.data.tokenization.codec import Codec
from llmft.models.backbone import load, locate, untrusted, vocabulary
from llmft.models.peft import trainable

if TYPE_CHECKING:
    from llmft.models.forward import Forward


class Backbone:
    """A pretrained model.

    Args:
        model: Config of the model group.
        prompt: Config of the prompt group, for ``codec``.
        data: Config of the data group; None if only answers are generated.
        peft: Config of the peft group, for ``load_adapted`` and for a quantized base; None for neither.
        path: Folder of the model if it was located already.
        reasoning: ``data.reasoning`` where there is no data.

    Attributes:
        model: Config of the model group.
        peft: Config of the peft group.
    """

    def __init__(
        self,
        model: Model,
        *,
        prompt: Prompt | None = None,
        data: Data | None = None,
        peft: Peft | None = None,
        path: str | None = None,
        reasoning: str = "template",
    ) -> None:
        self.model, self.peft = model, peft
        self._prompt, self._data, self._reasoning = prompt, data, reasoning
        if path:
            self.path = path

    @classmethod
    def open(cls, cfg: TrainConfig | PreviewConfig | RunOrModel, path: str | None = None) -> "Backbone":
        """The backbone of a config with the groups model, prompt and, for a training, data and peft."""
        data = None if isinstance(cfg, RunOrModel) else cfg.data
        peft = cfg.peft if isinstance(cfg, TrainConfig) else None
        return cls(cfg.model, prompt=cfg.prompt, data=data, peft=peft, path=path)

    @cached_property
    def path(self) -> str:
        """Folder or Hub id; a GGUF file is converted and a tiny model built on first use.

        Raises:
            UserError: There is no such folder, file or package.
        """
        return locate.locate(self.model)

    @property
    def family(self) -> "type[Forward]":
        """The forward pass of its family: ``CausalForward`` or ``Seq2SeqForward``."""
        return load.family_of(self.model)

    @cached_property
    def config(self) -> Any:
        """The transformers config."""
        return load.load_config(self.path, self.model)

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer, with ``model.new_tokens``."""
        return load.load_tokenizer(self.path, self.model)

    @cached_property
    def _codec(self) -> tuple[Codec, str]:
        data = self._data
        assert self._prompt is not None
        policy = (data.train_on, data.train_on_turns, data.reasoning) if data else ("answer", "last", self._reasoning)
        return codec_for(
            self.model.family,
            self.tokenizer,
            self._prompt,
            data.prompt if data else None,
            *policy,
            stops=self._ending_ids(),
        )

    def _ending_ids(self) -> list[int]:
        vocabulary.check_vocabulary(self.tokenizer, self.config, self.model.new_tokens)
        return vocabulary.ending_ids(self.path, self.model.revision)

    @property
    def codec(self) -> Codec:
        """Encodes examples with the prompt template and the tokenizer.

        Raises:
            UserError: The tokenizer has no chat template, and the prompt is ``chat``.
        """
        return self._codec[0]

    @property
    def prompt_name(self) -> str:
        """The prompt that ``prompt=auto`` resolved to."""
        return self._codec[1]

    def load(self) -> Any:
        """The base model in train mode; quantized if ``peft.quantise`` is set."""
        return load.load_model(self.path, self.model, self.peft)

    def load_adapted(self, *, meta: bool = False) -> Any:
        """The model with exactly the parameters of ``peft`` trainable, LoRA matrices initialized.

        Args:
            meta: Whether to read no weights and leave the model on the meta device.
        """
        assert self.peft is not None
        base = load.load_model(self.path, self.model, self.peft, meta=True) if meta else self.load()
        with base.device if base.device.type == "meta" else nullcontext():
            return trainable.adapt(base, self.peft, self.model.lora_targets)


class TrainedBackbone(Backbone):
    """The model that a run has trained: its ``model/`` holds all weights, or an adapter on the run's backbone.

    Args:
        folder: ``model/`` of the run.
        cfg: The run's config.
    """

    def __init__(self, folder: Path, cfg: TrainConfig) -> None:
        prompt = cfg.prompt.replaced({"name": "chat", "template": None})
        super().__init__(cfg.model, prompt=prompt, data=cfg.data, peft=cfg.peft)
        self.folder = folder

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer of the run, whose chat template is the prompt that was trained with."""
        return load.load_tokenizer(str(self.folder), self.model)

    def _ending_ids(self) -> list[int]:
        if self.peft is None or not trainable.is_adapter(self.peft):
            vocabulary.check_vocabulary(
                self.tokenizer, load.load_config(str(self.folder), self.model), self.model.new_tokens
            )
        return vocabulary.ending_ids(str(self.folder), None)

    def load(self) -> Any:
        """The trained model; an adapter is on the base as it was in training (quantized if it was)."""
        if self.peft is None or not trainable.is_adapter(self.peft):
            model = load.load_model(str(self.folder), self.model)
            untrusted.check_trained(model, self.folder)
            return model
        return untrusted.load_adapter(self.load_base(), self.folder, len(self.tokenizer))

    def load_base(self) -> Any:
        """The base model, as it was before training."""
        return super().load()
