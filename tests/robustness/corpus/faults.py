"""What a parser once stumbled over: (its name in tests/robustness/test_fuzz.py, the input). A found fault is added here."""

from typing import Any

# The config of a run, as far as opening it needs it.
RUN = {"model": {"name": "m", "_target_": "llmft.models.causal.Causal", "family": "causal", "path": "x"}, "data": {}, "peft": {}, "generation": {}, "prompt": {"name": "auto", "template": None}}  # fmt: skip
FAULTS: list[tuple[str, Any]] = [
    ("config", ""),
    ("config", "[]"),
    ("config", "- 1"),
    ("config", "1.5"),
    ("config", {"model": None, "data": {}, "peft": {}, "generation": {}, "prompt": {}}),
    ("config", {"model": {"family": 3}, "data": [], "peft": 1, "generation": "x", "prompt": None}),
    ("config", "a: &a [*a]"),
    ("config", {**RUN, "callbacks": None}),
    ("config", {**RUN, "logger": 3}),
    ("config", {**RUN, "peft": {"\x81": None}}),
    ("record", "false"),
    ("record", {"status": "finished", "objective": [1], "seed": 1, "metrics": {"after": {}}}),
    ("record", {"status": "finished", "objective": 1.0, "seed": [], "metrics": [1]}),
    ("record", {"status": "finished", "objective": 1.0, "seed": 1, "parameters": {"total": "x", "trainable": []}}),
    ("adapter", b"[" * 100_000),
    ("adapter", b"[]"),
    ("adapter", b'{"weight_map": []}'),
]
