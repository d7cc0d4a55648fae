"""Bounds that several rooms keep."""

MAX_SEED = 2**64 - 1
"""The largest seed that ``torch.Generator.manual_seed`` takes."""
