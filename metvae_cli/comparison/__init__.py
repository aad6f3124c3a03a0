"""Runs side by side: found on disk, grouped by everything but the seed, averaged, and shown."""
