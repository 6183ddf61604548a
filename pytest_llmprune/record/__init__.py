"""The record of a run: the only thing that leaves it. Everything that reports reads records and nothing else."""
