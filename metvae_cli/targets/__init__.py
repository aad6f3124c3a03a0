"""Densities to draw from without data: what `metvae infer` can be pointed at."""
