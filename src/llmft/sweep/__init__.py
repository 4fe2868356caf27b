"""Sweeps: jobs, Optuna, tables of results."""
