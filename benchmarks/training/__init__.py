"""The parts of ``benchmarks/train.py``; ``turns`` and ``peers`` also run in the peers' environment, where llmft is not."""
