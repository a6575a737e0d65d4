"""One trial: its parameters, its training, its numbers. Imports neither Ray nor Optuna and touches no study."""
