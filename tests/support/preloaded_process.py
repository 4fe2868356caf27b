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
    "tests.conftest",
):
    importlib.import_module(name)
gc.collect()
gc.freeze()  # otherwise a garbage collection of a fork would copy all of it
