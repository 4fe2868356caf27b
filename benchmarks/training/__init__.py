"""Modules of ``benchmarks/train.py``; ``turns`` and ``peers`` also run in the peers' environment, which has no llmft."""
