"""What pytest loads at every start: it hands over to `plugin`, quickly.

pytest imports the modules of plugins through its assertion rewriter, which reads compiled modules piece by piece from
the file: that alone took twice as long as everything else that this plugin does while it is idle. No module here holds
asserts worth rewriting, so Python's own loader is asked instead.
"""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from typing import Any


def load(name: str) -> Any:
    """The module `pytest_llmprune.NAME`, imported by Python's own loader unless it is already."""
    full_name = f"{__package__}.{name}"
    if full_name not in sys.modules:
        spec = PathFinder.find_spec(full_name, sys.modules[__package__].__path__)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[full_name] = module = module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[full_name]


def pytest_addoption(pluginmanager: Any) -> None:
    load("words")
    load("options")
    load("markers")
    pluginmanager.register(load("plugin"), "llmprune-plugin")
