"""Names of metrics, and which direction is better."""

# Every score, in the order in which they are shown, and which way is better ("" where neither is).
BETTER = {
    "loss": "lower",
    "perplexity": "lower",
    "exact_match": "higher",
    "f1": "higher",
    "bleu": "higher",
    "chrf": "higher",
    "rouge1": "higher",
    "rouge2": "higher",
    "rougeL": "higher",
    "rougeLsum": "higher",
    "keyword_precision": "higher",
    "keyword_recall": "higher",
    "keyword_f1": "higher",
    "words": "",
    "distinct1": "",
    "distinct2": "",
    "ended": "higher",
    "judge": "higher",
}

# What a training logs of each step, as ``train/...``, and which way is better.
LOGGED = {
    "loss": "lower",
    "perplexity": "lower",
    "grad_norm": "lower",
    "clipped_share": "lower",
    "tokens_per_second": "higher",
    "rows_per_second": "higher",
}


def mode_of(monitor: str) -> str:
    """``max`` for a logged number of which more is better (``val/bleu``), else ``min`` (losses)."""
    name = monitor.rpartition("/")[2]
    return "max" if "higher" in (BETTER.get(name), LOGGED.get(name)) else "min"
