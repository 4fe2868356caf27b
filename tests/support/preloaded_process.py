"""What a training imports late: for a fork server (``forked``), so that its forks need not, each for itself."""

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
gc.freeze()  # else a fork's collections would copy all of it
