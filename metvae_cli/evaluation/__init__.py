"""Evaluation: likelihoods with error bars, and pictures."""
