"""From a model to torch-pruning's dependency graph, and from that to a snapshot that can be compared."""
