"""From what the user names (a spec) to a model in memory."""
