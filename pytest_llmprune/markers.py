"""What the markers mean: why a test is skipped here, or expected to fail."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

MARKERS = (
    "llm_gpu: needs a CUDA device; skipped, with the reason, where there is none",
    "llm_network: needs a model hub; skipped, with the reason, where none is reached",
    "llm_slow: takes minutes; skipped, with the reason, in the smoke profile",
    "known_defect(id): fails because of this defect of torch-pruning, and is expected to while the defect shows",
)


def reason_to_skip(names: Iterable[str], profiles: Iterable[str]) -> str | None:
    """Why a test with markers of these names can't run here with these profiles, or None."""
    names = set(names)
    if "llm_gpu" in names:
        import torch

        if not torch.cuda.is_available():
            return "llm_gpu: torch sees no CUDA device on this machine"
    if "llm_slow" in names and set(profiles) <= {"smoke"}:
        return "llm_slow: left out of the smoke profile; add --llmprune-profile standard"
    if "llm_network" in names:
        return _no_hub()
    return None


@cache
def _no_hub() -> str | None:
    """Why the model hub is not to be had, or None if its address answers."""
    import os
    import socket
    from urllib.parse import urlsplit

    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE") == "1":
        return "llm_network: HF_HUB_OFFLINE is set"
    host = urlsplit(constants.ENDPOINT)
    try:
        socket.create_connection((host.hostname or "", host.port or 443), timeout=3).close()
    except OSError as error:
        return f"llm_network: no model hub is reached ({error})"
    return None


def defect_that_shows(ids: Iterable[str]) -> str | None:
    """The first of these defects that shows on torch-pruning as it is now, patched or not.

    Raises UserError for an unknown id.
    """
    from .errors import UserError
    from .fixes.expectation import PRESENT, find
    from .fixes.registry import FIXES

    for id in ids:
        if id not in FIXES:
            raise UserError(f"known_defect({id!r}): there is no such defect; there are {', '.join(FIXES)}")
        if find(FIXES[id]).outcome == PRESENT:
            return id
    return None
