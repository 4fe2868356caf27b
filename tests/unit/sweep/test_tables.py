"""The table that a sweep prints."""

from llmft.sweep import tables


def row(run, **values):
    return {"run": run, "status": "finished", "objective": 1.25, "steps": 20, "seconds": 3.5, **values}


def test_nothing_is_cut_at_80_columns(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    rows = [
        row(
            str(n),
            **{
                "model": "tiny_llama",
                "optim.weight_decay": f"0.{n}123456789012345",
                "scheduler": "linear",
            },
        )
        for n in (1, 2)
    ]
    rows[1] |= {"val nats/byte": 2.5, "reason": "out of luck"}
    tables.show(tmp_path, rows, ["model", "optim.weight_decay", "scheduler"])
    words = capsys.readouterr().out.split()
    assert "…" not in "".join(words)
    for text in (
        "model=tiny_llama,",
        "weight_decay=0.112,",
        "weight_decay=0.212,",
        "scheduler=linear",
        "nats/byte",
        "2.5",
        "luck",
    ):
        assert text in words
