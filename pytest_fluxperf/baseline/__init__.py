"""Baselines: what was measured before, on which hardware, with which software."""
