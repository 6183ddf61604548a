"""From a model and a case (recipe, ratio, importance) to a pruned model that saves and reloads."""
