"""What the terminal shows at the end of a training."""

from types import SimpleNamespace

from llmft.config import swept
from llmft.training import summary


def test_a_job_of_a_sweep_shows_its_verdict_with_the_reservations(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv(swept.VARIABLE, '["optim.lr"]')
    verdict = {
        "color": "amber",
        "headline": "Better than its base.",
        "reasons": ["8 rows, fewer than 30"],
        "details": [],
    }
    run = SimpleNamespace(path=tmp_path / "run")
    summary.show(run, {}, [], [], [], {"verdict": verdict}, ("val/loss", "min"))  # pyright: ignore[reportArgumentType]
    assert capsys.readouterr().out.splitlines() == [
        "Better than its base.",
        "Reservations: 8 rows, fewer than 30.",
        f"run directory: {tmp_path / 'run'}",
    ]
