"""Measurements of a model (perplexity, coherence, cost), and gates that judge them against dense."""
