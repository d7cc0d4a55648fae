"""One test and one run: from its case to its result, and all results of a run."""
