"""Variational auto-encoders with Markov chain Monte Carlo: train and compare them on the command line."""

__version__ = "0.1.0"
