"""The regression tests that users run against their stack and their model: `pytest suites`, or `pytest --pyargs
pytest_llmprune.suites`.
"""
