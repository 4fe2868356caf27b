"""Judge backend that runs a local model in this process."""

from collections.abc import Callable, Sequence
from typing import Any

from llmft.config.groups import prompt_config
from llmft.config.schema import judge as schema
from llmft.data.records import Turn
from llmft.evaluation.judge.requests import Request
from llmft.generation.generator import Generator
from llmft.models.backbone.open import Backbone
from llmft.models.dtype import untrained_precision
from llmft.utils import device

# Replies are handed over after this many requests, so that an interrupted evaluation keeps most of them.
STORED_AFTER = 64


class LocalModel:
    """A local model as a judge, loaded at the first query.

    Args:
        settings: The config of the judge group; ``model`` is one of the model group.
        where: The device to run it on; None for the default one.
    """

    def __init__(self, settings: schema.ModelJudge, where: Any = None) -> None:
        self.settings, self.generator, self.device = settings, None, where or device.default_device()

    def identity(self) -> dict[str, Any]:
        """What the scores depend on besides seed and prompt; part of the key of stored replies."""
        model = self.settings.model
        return {"kind": "model", "path": model.path, "revision": model.revision, "gguf_file": model.gguf_file}

    def check(self) -> None:
        """Do nothing; a local model needs no server."""

    def query(
        self,
        requests: Sequence[Request],
        prompts: Sequence[str],
        _: Sequence[int],
        on_reply: Callable[..., None],
    ) -> None:
        """Generate greedily for all prompts, so that the seed has no effect, and call ``on_reply`` for each."""
        self.generator = self.generator or self._load()
        for start in range(0, len(requests), STORED_AFTER):
            part = slice(start, start + STORED_AFTER)
            answers = self.generator.answers([(Turn("user", prompt),) for prompt in prompts[part]])
            for request, answer in zip(requests[part], answers, strict=True):
                on_reply(request, answer.text, None)

    def _load(self) -> Any:
        backbone = Backbone(self.settings.model, prompt=prompt_config("auto"))
        settings = {"max_new_tokens": self.settings.max_new_tokens, "batch_size": 8, "seed": 0}
        precision = untrained_precision(self.settings.model.dtype)
        return Generator(backbone.load().to(self.device), backbone.codec, settings, precision=precision)
