"""The gate: from a measurement and its baseline to a verdict, by pure functions."""
