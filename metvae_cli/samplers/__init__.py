"""Samplers: K kernels along a schedule of inverse temperatures."""
