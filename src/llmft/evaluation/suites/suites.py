"""Run tasks of lm-evaluation-harness on the base and the tuned model, and score one beside the other."""

import importlib
import logging
import random
from typing import Any

import numpy as np
import torch

from llmft.config.schema.commands import EvaluateConfig
from llmft.config.target_allowlist import allowed_targets
from llmft.data.tokenization.codec import Codec
from llmft.evaluation.suites import tasks
from llmft.evaluation.suites.harness_model import harness_model
from llmft.evaluation.suites.task_files import SUITE_CODE
from llmft.metrics.suites import Scores, suite_scores
from llmft.models.dtype import answering_precision, autocast
from llmft.models.peft.trainable import base_of, has_adapter
from llmft.utils.determinism import lifted
from llmft.utils.device import on_device
from llmft.utils.errors import UserError
from llmft.utils.modules import eval_mode
from llmft.utils.paths import user_path
from llmft.utils.text import one_line

log = logging.getLogger(__name__)


class Suites:
    """Loaded tasks, and what was found on them.

    Args:
        config: The ``suite`` keys, and ``evaluate.resamples`` and ``seed``.
        system: System prompt of the run, with ``suite_chat_template``.
        precision: ``trainer.precision`` of the run.

    Attributes:
        found: For ``base`` and ``tuned``, what ``lm_eval.evaluator.evaluate`` has returned.

    Raises:
        UserError: lm-evaluation-harness is not installed, or a task cannot be loaded.
    """

    def __init__(self, config: EvaluateConfig, system: str | None = None, precision: str = "32-true") -> None:
        self.config, self.system, self.precision, self.version = config, system, precision, tasks.version()
        self.code = SUITE_CODE in allowed_targets()
        folder = user_path(config.suite_path).resolve() if config.suite_path else None
        self.loaded = tasks.load_tasks(config.suites, folder, code=self.code)
        for name, task in self.loaded["tasks"].items():
            self._set_shots(name, task)
        self.found: dict[str, Any] = {}

    def _set_shots(self, name: str, task: Any) -> None:
        """Set the number of examples in the prompt; a task that fixes 0 keeps it, as in the harness."""
        own, chosen = task.get_config("num_fewshot"), self.config.suite_num_fewshot
        if own == 0 and chosen:
            log.warning("suite: %s has no examples in its prompt, whatever suite_num_fewshot is", name)
        task.set_config(key="num_fewshot", value=own or 0 if chosen is None or own == 0 else chosen)

    def run(self, which: str, model: Any, codec: Codec, device: Any) -> None:
        """Run all tasks on a model.

        Args:
            which: ``base`` or ``tuned``.
            model: A transformers or peft model.
            codec: Of the run.
            device: Where to run it.

        Raises:
            UserError: The harness cannot run a task on this model.
        """
        log.info("suite: %s on the %s model", ", ".join(self.loaded["tasks"]), which)
        self._seed()
        chat, where = self.config.suite_chat_template, torch.device(device)
        precision = answering_precision(where, self.precision, self.config.evaluate.dtype)
        with (
            tasks.harness(code=self.code),
            on_device(model, device),
            lifted(where),
            eval_mode(model),
            torch.inference_mode(),
            autocast(where, precision),
        ):
            harness = harness_model(model, codec, batch_size=self.config.suite_batch_size)
            try:
                self.found[which] = importlib.import_module("lm_eval.evaluator").evaluate(
                    lm=harness,
                    task_dict=self.loaded,
                    limit=self.config.suite_limit,
                    bootstrap_iters=self.config.evaluate.resamples,
                    system_instruction=self.system if chat else None,
                    apply_chat_template=chat,
                    fewshot_as_multiturn=chat,
                )
            except (AssertionError, ValueError, KeyError) as error:
                raise UserError(f"suite: lm-evaluation-harness: {one_line(error)}") from error
        if harness.cut:
            log.warning(
                "suite: %d sequences are longer than the %d positions of the %s model, and lost their start",
                harness.cut, harness.max_length, which,
            )  # fmt: skip

    def run_tuned(self, model: Any, codec: Codec, device: Any) -> None:
        """Run all tasks on a trained model, and on its base if that is the same model without its adapter."""
        if has_adapter(model) and self.config.evaluate.base:
            with base_of(model):
                self.run("base", model, codec, device)
        self.run("tuned", model, codec, device)

    def scores(self) -> Scores:
        """``evaluation["suites"]``: each task's scores, tuned beside base."""
        tuned, base = self.found["tuned"], self.found.get("base")
        resamples, seed = self.config.evaluate.resamples, self.config.seed
        return suite_scores(tuned, base, version=self.version, resamples=resamples, seed=seed)

    def _seed(self) -> None:
        """The same examples in the prompts of both models."""
        seed = self.config.seed
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 (tasks of the harness draw from it)
        torch.manual_seed(seed)
        for task in self.loaded["tasks"].values():
            task.set_fewshot_seed(seed=seed)
