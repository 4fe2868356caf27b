"""External suites: tasks of lm-evaluation-harness on the base and the tuned model."""
