"""Is the pruned model still a language model?"""

from __future__ import annotations


def test_quality(llm_pruned, quality_gate):
    quality_gate(llm_pruned)
