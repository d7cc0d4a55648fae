"""One loaded base, many recipes: models, the pool that prepares them, and the optimizations."""
