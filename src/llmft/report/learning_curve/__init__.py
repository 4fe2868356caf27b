"""Loss over the number of training examples: ``learning_curve.html``, ``.csv`` and ``.png`` of a folder of runs."""

from llmft.report.learning_curve.write import write_learning_curves

__all__ = ["write_learning_curves"]
