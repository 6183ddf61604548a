"""The exceptions that carry a sentence for a person instead of a traceback."""

from __future__ import annotations


class UserError(Exception):
    """A user's mistake: one line that says what is wrong, why, and what to do. Ends pytest and `llmprune` with exit
    code 4 / 2.
    """


class CheckFailed(AssertionError):
    """Something that was checked does not hold: the message is the whole report, a traceback adds nothing."""
