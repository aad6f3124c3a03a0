"""Search for the best values of keys by Optuna, which is imported here alone."""
