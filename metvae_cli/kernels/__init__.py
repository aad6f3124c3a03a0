"""Markov kernels: a proposal, and what is done with it (accepted or rejected, or taken as it is)."""
