"""LLM-as-a-judge: prompts, backends, reply parsing and aggregation."""
