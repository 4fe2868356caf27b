"""The rule by which a score leads."""

from llmft.metrics.metric import mean_metric
from llmft.metrics.verdict.primary import primary_score

SCORES = ("loss", "perplexity", "f1", "chrf", "keyword_f1", "mine")
MINE = mean_metric("mine", lambda _: 1.0, "always right")


def test_the_objective_then_the_data_sets_own_then_the_loss():
    def leads(objective, own=(), with_loss=True):
        return primary_score(objective, own, SCORES, with_loss=with_loss).score

    assert leads("val/chrf", ["keywords"]) == "chrf"
    assert leads("val/loss", ["keywords"]) == "keyword_f1"
    assert leads("val/perplexity", [MINE, "keywords"]) == "mine"
    assert leads("val/loss", ["f1", MINE]) == "f1"
    assert leads("val/loss") == leads("train/grad_norm") == leads(None) == "loss"
    assert leads("val/nothing", [mean_metric("gone", lambda _: 1.0, "not computed")]) == "loss"
    assert leads(None, with_loss=False) == "chrf"
