"""Hypothesis strategies and oracles for a tracer of neural networks, of use in torch-pruning's own tests too.

    from hypothesis import given
    from pytest_llmprune.fuzz import modules, nested_outputs, oracles

See docs/fuzzing.md. Needs Hypothesis: pip install 'pytest-llmprune[fuzz]'.
"""

from . import oracles, scripts
from .configs import llama_configs
from .modules import Network, modules
from .oracles import Cut
from .outputs import Nest, nested_outputs, nests

__all__ = ["Cut", "Nest", "Network", "llama_configs", "modules", "nested_outputs", "nests", "oracles", "scripts"]
