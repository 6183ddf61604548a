"""Run a check on examples: as many as the profile says, with a script for the smallest that fails."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis.errors import HypothesisException
from hypothesis.strategies import SearchStrategy

from ..errors import CheckFailed

if TYPE_CHECKING:
    from ..record.recorder import Recorder

EXAMPLES = {"smoke": 40, "standard": 100, "deep": 10_000}


def settings_of(profile: str, seed: int) -> settings:
    """Hypothesis' settings for a profile. Smoke and standard try the same examples every time, unless a seed is given,
    so that a gate's verdict is the library's and not the day's; deep draws new ones, keeps its failures in Hypothesis'
    database, and honours `--hypothesis-seed`.
    """
    chosen = settings(
        max_examples=EXAMPLES[profile],
        derandomize=profile != "deep" and seed == 0,
        deadline=None,  # the first example imports half of transformers
        suppress_health_check=[HealthCheck.too_slow],
        phases=set(Phase) - {Phase.explain},  # the script says more than what might have varied
        report_multiple_bugs=False,
        print_blob=False,
    )
    return chosen if profile == "deep" else settings(chosen, database=None)


class Fuzz:
    """What the fixture `fuzz` hands to a test."""

    def __init__(
        self, profile: str, seed: int, record: Recorder, reporting: Callable[[], AbstractContextManager[None]]
    ) -> None:
        """reporting: a context that turns CheckFailed into the test's failure."""
        self._settings, self._seed, self._record = settings_of(profile, seed), seed, record
        self._reporting = reporting
        self._script: Callable[[], str] = str

    def script(self, write: Callable[..., str], *arguments: Any) -> None:
        """`write(*arguments)` is the program that shows, on plain torch-pruning, what is checked next; it is written
        for the smallest failure alone.
        """
        self._script = functools.partial(write, *arguments)

    def __call__(self, check: Callable[..., None], *strategies: SearchStrategy[Any]) -> None:
        """Call `check` with examples of `strategies`. Fails with the error that the smallest failing example raises,
        that example and its script.
        """
        tried = 0
        smallest: tuple[dict[str, Any], Callable[[], str]] | None = None

        @functools.wraps(check)
        def one(**example: Any) -> None:
            nonlocal tried, smallest
            tried += 1
            try:
                check(**example)
            except HypothesisException:
                raise
            except Exception:
                smallest = example, self._script  # the last one that Hypothesis tries
                raise

        run = self._settings(given(*strategies)(one))
        with self._reporting():
            try:
                (seeded(self._seed)(run) if self._seed else run)()
            except Exception as error:
                if smallest is None:
                    raise
                raise CheckFailed(_told(error, *smallest)) from error
            finally:
                self._record.measure("examples", tried)


def _told(error: Exception, example: dict[str, Any], script: Callable[[], str]) -> str:
    shown = "\n".join(f"  {name} = {value}" for name, value in example.items())
    what = str(error) if isinstance(error, AssertionError | CheckFailed) else f"{type(error).__name__}: {error}"
    return f"{what}\n\nthe smallest example that fails:\n{shown}\n\nto see it on plain torch-pruning:\n\n{script()}"
