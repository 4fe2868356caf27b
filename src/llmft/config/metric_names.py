"""Names of metrics, and whether higher or lower is better."""

# All scores in display order, and which direction is better ("" where neither is).
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
    "nats_per_byte": "lower",
}
# Of these, what no evaluation of a run computes by itself: a judge's score, and what compares runs of different tokenizers.
OUTSIDE = ("judge", "nats_per_byte")

# Metrics logged per training step as ``train/...``, and which direction is better.
TRAIN_METRICS = {
    "loss": "lower",
    "perplexity": "lower",
    "grad_norm": "lower",
    "clipped_share": "lower",
    "tokens_per_second": "higher",
    "rows_per_second": "higher",
}

# The scores of an evaluation by the split of its rows: prefix of the logged names (``test/chrf``), and key in ``metrics`` of
# ``run.json``. Validation rows that stand in for a missing test split are never called test.
SCORE_GROUPS = {"test": "test", "val": "val_scores", "train": "train_scores"}


def monitor_mode(monitor: str) -> str:
    """``max`` if higher is better for a logged metric (``val/bleu``), else ``min`` (losses)."""
    name = monitor.rpartition("/")[2]
    return "max" if "higher" in (BETTER.get(name), TRAIN_METRICS.get(name)) else "min"
