"""Regression tests for pruning large language models with Torch-Pruning.

Importing this package imports neither torch nor transformers nor torch_pruning; its subpackages do when they are used.
"""

__version__ = "0.1.0"
