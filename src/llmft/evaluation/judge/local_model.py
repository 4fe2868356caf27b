"""Prompts -> replies of a local model, through llmft itself."""

from collections.abc import Callable, Sequence
from typing import Any

from llmft.evaluation.judge.requests import Request


class LocalModel:
    """A judge in this process; loaded when it is first asked.

    Args:
        settings: The config of the judge group; ``model`` is one of the model group.
    """

    def __init__(self, settings: Any) -> None:
        self.settings, self.generator = settings, None

    def identity(self) -> dict[str, Any]:
        """What of this judge its scores depend on."""
        model = self.settings.model
        return {"kind": "model", "path": model.path, "revision": model.revision, "gguf_file": model.gguf_file}

    def check(self) -> None:
        """Nothing to find out: the model is a local one."""

    def ask(
        self,
        requests: Sequence[Request],
        prompts: Sequence[str],
        _: Sequence[int],
        took: Callable[..., None],
    ) -> None:
        """Ask all; greedy, so that the seed changes nothing."""
        from llmft.data.records import Turn

        self.generator = self.generator or self._load()
        answers = self.generator.answers([(Turn("user", prompt),) for prompt in prompts])
        for request, answer in zip(requests, answers, strict=True):
            took(request, answer.text, None)

    def _load(self) -> Any:
        from llmft.config.paths import prompt_config
        from llmft.generation.generator import Generator
        from llmft.models.backbone.open import Backbone
        from llmft.utils import device

        backbone = Backbone(self.settings.model, prompt=prompt_config("auto"))
        settings = {"max_new_tokens": self.settings.max_new_tokens, "batch_size": 8, "seed": 0}
        return Generator(backbone.load().to(device.default_device()), backbone.codec, settings)
