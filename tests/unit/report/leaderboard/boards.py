"""Runs of a leaderboard, without their folders, and the study of a search."""

from llmft.config.write_paths import STUDY
from llmft.metrics.verdict.verdict import Verdict
from llmft.report.leaderboard.ranking import Group
from llmft.report.leaderboard.runs import BoardRun
from llmft.runs.study import NAME, storage_of

DEFAULTS = {
    "status": "finished", "reason": "", "settings": {}, "typed": frozenset(), "overrides": (), "monitor": "val/loss", "before": None,
    "objective": None, "seed": 1, "test": {}, "trainable": None, "speed": None, "memory": None, "seconds": None, "predictions": (),
    "split": "test", "dtypes": (None, None), "validation": {}, "data": {}, "curve": None, "verdict": Verdict("amber", ""), "has_report": False,
}  # fmt: skip


def run(name="r", **values):
    """A run with the defaults of one that knows nothing."""
    return BoardRun(**{"name": name, **DEFAULTS, **values})


def group(name, **values):
    """A group of one run."""
    return Group([run(name, **values)], name)


def rows(texts, nats, tokens):
    """Predictions of some references, each with these nats over this many tokens."""
    return [
        {"identity": text, "reference": text, "answer": text, "nats": n, "supervised": t}
        for text, n, t in zip(texts, nats, tokens, strict=True)
    ]


def add_study(folder, trials):
    """A study of a learning rate, which the value follows, and a rank."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    created = optuna.create_study(storage=storage_of(folder / STUDY), study_name=NAME, direction="minimize")
    for n in range(trials):
        distributions = {"optim.lr": optuna.distributions.FloatDistribution(1e-5, 1e-1, log=True),
                         "peft.r": optuna.distributions.IntDistribution(1, 9)}  # fmt: skip
        params = {"optim.lr": 10 ** -(1 + n % 5), "peft.r": 1 + n * 4 % 9}
        created.add_trial(
            optuna.trial.create_trial(params=params, distributions=distributions, value=float(n % 5))
        )  # follows lr alone
