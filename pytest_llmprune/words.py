"""The words that options and recipes share: every choice is written down once, where importing it costs nothing."""

RECIPES = ("ffn", "heads", "kv-groups", "width", "all")
IMPORTANCES = ("taylor", "magnitude", "random")
WEIGHTS = ("pretrained", "random", "meta")
DTYPES = ("auto", "float32", "bfloat16", "float16")
PROFILES = ("smoke", "standard", "deep")
DEVICES = ("auto", "cpu", "cuda", "cuda:N", "mps")
TEXTS = ("builtin", "wikitext2")
PERPLEXITIES = ("windows", "rolling")

# exit codes of `llmprune`; undecided or changed: a person must look
FINE, FAILED, USAGE, UNDECIDED = 0, 1, 2, 3
