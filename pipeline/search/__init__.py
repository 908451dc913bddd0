"""Sweeps: which values the next trial gets, as Optuna says it, and the jobs that the trials are."""
