"""Sweeps: jobs, Optuna search, tables of results."""
