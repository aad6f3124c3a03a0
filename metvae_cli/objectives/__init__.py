"""Objectives: what is maximised, and the scalar whose gradient is an estimate of its gradient."""
