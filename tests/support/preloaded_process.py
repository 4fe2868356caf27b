"""Preload what a training imports late: for the fork server of ``forked``, so that no fork imports it again."""

import gc
import importlib

for name in (
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_svg",
    "matplotlib.figure",
    "pandas",
    "peft",
    "rouge_score.rouge_scorer",
    "sacrebleu.metrics.bleu",
    "sacrebleu.metrics.chrf",
    "torch.utils.tensorboard",
    "transformers.modeling_utils",
    "transformers.optimization",
    "transformers.generation.utils",
    "transformers.models.gpt2.modeling_gpt2",
    "transformers.models.llama.modeling_llama",
    "transformers.models.t5.modeling_t5",
):
    importlib.import_module(name)

from tests import conftest  # noqa: E402
from tests.support import fast_compose  # noqa: E402

undo = fast_compose.install()
for model in conftest.TINY:  # their files of conf/ are parsed
    conftest.composed(f"model={model}", "data=alpaca", "peft=lora")
undo()
gc.collect()
gc.freeze()  # otherwise a garbage collection of a fork would copy all of it
