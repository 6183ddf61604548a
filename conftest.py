"""Makes a checkout work without an installation, which would bring the plugin by its entry point."""

from importlib import metadata

_installed = any(entry.name == "llmprune" for entry in metadata.entry_points(group="pytest11"))
pytest_plugins = ["pytester"] if _installed else ["pytester", "pytest_llmprune.plugin"]

if not _installed:

    def pytest_addoption(parser):
        from pytest_llmprune.plugin import add_alias

        add_alias(parser)
