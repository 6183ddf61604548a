"""Find the first version, or the first commit of a checkout, where a test fails as it fails on the bad one.

Older versions fail the same test for other reasons, so what is looked for is the bad one's signature: the test, and its
reason with numbers and addresses left out. A version is `bad` with that signature, else `good`. Halving finds a change
from good to bad; where outcomes go to and fro it is one of several, and that is said.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from packaging.version import Version

from ..errors import UserError
from ..record.compare import BAD, GOOD
from ..record.store import write_atomically
from .overlay import installed
from .requirement import Req, parse_all
from .run import Side, SideRun, Suites, prepared, run_suites

TEXT_SHOWN = 130
PASSES, FAILS, CANNOT_RUN = "passes", "fails", "can't run"


@dataclass(frozen=True)
class Outcome:
    """What the tests do on one version: they pass, fail, or can't run. signatures: of each that fails, `test: reason`,
    with numbers left out. text: the first reason as it was, or why they can't run.
    """

    state: str
    signatures: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class Tried:
    """One version that was tried; `bad`: whether it fails with the signature of the bad one."""

    version: str
    outcome: Outcome
    bad: bool


@dataclass(frozen=True)
class Found:
    """first: the first bad version found. before: the newest good one before it. between: versions between those two
    that can't run, so that any of them may be the first. tried: all that is known, oldest first.
    """

    first: str
    before: str
    between: tuple[str, ...]
    tried: tuple[Tried, ...]
    signature: str

    @property
    def is_monotone(self) -> bool:
        """Whether, of the versions that ran, the bad ones all come last."""
        bad = [tried.bad for tried in self.tried if tried.outcome.state != CANNOT_RUN]
        return bad == sorted(bad)


def bisect(
    versions: Sequence[str], outcome: Callable[[str], Outcome], known: Mapping[str, Outcome] | None = None
) -> Found:
    """Search `versions`, oldest first, whose first is good and whose last is bad. outcome: runs one. known: what
    earlier runs found; it narrows nothing, and tells whether outcomes are monotone.

    Raises UserError if the last does not fail, the first fails as the last does, or one of them can't run.
    """
    good, bad = versions[0], versions[-1]
    outcomes = {bad: outcome(bad)}
    if outcomes[bad].state != FAILS:
        raise UserError(f"--bad {bad}: the tests should fail there: {_said(outcomes[bad])}")
    wanted = set(outcomes[bad].signatures)
    outcomes[good] = outcome(good)
    if outcomes[good].state == CANNOT_RUN:
        raise UserError(f"--good {good}: {_said(outcomes[good])}")
    if wanted & set(outcomes[good].signatures):
        raise UserError(f"--good {good}: it fails as {bad} does: {outcomes[bad].text}")
    low, high = 0, len(versions) - 1
    while middles := [i for i in _from_the_middle(low, high) if _state(outcomes, versions[i]) != CANNOT_RUN]:
        version = versions[middles[0]]
        outcomes[version] = outcome(version)
        if outcomes[version].state != CANNOT_RUN:
            is_bad = bool(wanted & set(outcomes[version].signatures))
            low, high = (low, middles[0]) if is_bad else (middles[0], high)
    everything = {**(known or {}), **outcomes}
    tried = tuple(
        Tried(version, everything[version], bool(wanted & set(everything[version].signatures)))
        for version in versions
        if version in everything
    )
    signature = min(wanted & set(outcomes[versions[high]].signatures))
    return Found(versions[high], versions[low], tuple(versions[low + 1 : high]), tried, signature)


def _from_the_middle(low: int, high: int) -> list[int]:
    """What lies strictly between, nearest to the middle first."""
    return sorted(range(low + 1, high), key=lambda index: abs(2 * index - low - high))


def _state(outcomes: Mapping[str, Outcome], version: str) -> str:
    return outcomes[version].state if version in outcomes else ""


def lines(found: Found) -> Iterator[str]:
    """What was tried, oldest first, and what was found."""
    width = max(len(_short(tried.version)) for tried in found.tried)
    for tried in found.tried:
        as_bad = "  <- as the bad one" if tried.bad else ""
        yield f"{_short(tried.version):{width}}  {_said(tried.outcome)}{as_bad}"
    if not found.is_monotone:
        yield "outcomes go to and fro, so this is one of several versions where the failure began:"
    if found.between:
        yield f"one of {', '.join(map(_short, (*found.between, found.first)))}: those before the last can't run"
    yield f"first bad: {_short(found.first)} ({_short(found.before)} is good): {found.signature}"


def _short(version: str) -> str:
    return version[:12] if re.fullmatch(r"[0-9a-f]{40}", version) else version


def _said(outcome: Outcome) -> str:
    text = outcome.text if len(outcome.text) <= TEXT_SHOWN else f"{outcome.text[:TEXT_SHOWN]}..."
    return f"{outcome.state}: {text}" if text else outcome.state


def signature_of(run: SideRun) -> Outcome:
    """What the record of a side says of the tests that were selected."""
    if run.kept is None:
        return Outcome(CANNOT_RUN, (), run.trouble)
    record = run.kept.record
    bad = [item for item in record.items if item.outcome in BAD]
    signatures = tuple(sorted({f"{item.key}: {_normal(item.reason or item.outcome)}" for item in bad}))
    if run.trouble:  # a crash or a hang is a failure of the test that it happened in
        where = record.missing[0] if record.missing else ""
        return Outcome(FAILS, (*signatures, f"{where}: {_normal(run.trouble)}"), run.trouble)
    if bad:
        return Outcome(FAILS, signatures, bad[0].reason)
    if any(item.outcome in GOOD for item in record.items):
        return Outcome(PASSES, (), "")
    return Outcome(CANNOT_RUN, (), f"every test is skipped: {record.items[0].reason if record.items else ''}")


def _normal(reason: str) -> str:
    """A reason without what differs from run to run and from version to version: numbers, addresses, paths."""
    return re.sub(r"0x[0-9a-f]+|\d[\d,]*|/\S+", "N", reason)


@dataclass(frozen=True)
class Runner:
    """Runs the tests on one version, once: what it found is kept in `cache`. requirement: a version as pip takes it."""

    requirement: Callable[[str], Req]
    suites: Suites
    scratch: Path
    cache: Path

    def __call__(self, version: str) -> Outcome:
        if known := self.known(version):
            _say(f"{version}: known from an earlier run: {known.state}")
            return known
        try:
            ready = prepared(Side(_short(version), (self.requirement(version),)), self.scratch, self.suites.limit)
        except UserError as error:
            return Outcome(CANNOT_RUN, (), str(error))  # not kept: the next run may find a network
        run = ready if isinstance(ready, SideRun) else run_suites(ready, self.suites)
        found = signature_of(run)
        _say(f"{version}: {_said(found)}")
        self.cache.mkdir(parents=True, exist_ok=True)
        write_atomically(self._file(version), json.dumps({"version": version, **asdict(found)}, indent=1) + "\n")
        return found

    def known(self, version: str) -> Outcome | None:
        """What an earlier run found."""
        file = self._file(version)
        if not file.is_file():
            return None
        values = json.loads(file.read_text(encoding="utf-8"))
        return Outcome(values["state"], tuple(values["signatures"]), values["text"])

    def _file(self, version: str) -> Path:
        """The file of a version; whatever may change an outcome is part of its name."""
        others = {name: text for name, text in installed().items() if name != self.requirement(version).name}
        told = repr((self.requirement(version).text, self.suites.arguments, sorted(others.items()), sys.version))
        return self.cache / f"{version}-{hashlib.sha256(told.encode()).hexdigest()[:12]}.json"


def index_versions(package: str, good: str, bad: str) -> list[str]:
    """The versions of a package from `good` to `bad` that pip's index has, by `pip index versions`, oldest first.

    Raises UserError if pip can't tell, or has one of the two not.
    """
    command = [sys.executable, "-m", "pip", "index", "versions", package, "--disable-pip-version-check"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    listed = re.search(r"^Available versions: (.*)$", result.stdout, re.MULTILINE)
    if not listed:
        error = next((line for line in result.stderr.splitlines()[::-1] if line.startswith("ERROR: ")), "")
        raise UserError(f"pip index versions {package}: {error.removeprefix('ERROR: ') or 'it lists none'}")
    versions = sorted(map(Version, listed[1].split(", ")))
    for side, version in (("good", good), ("bad", bad)):
        if version not in map(str, versions):
            raise UserError(f"--{side} {version}: the index has {', '.join(map(str, versions))}")
    chosen = [str(version) for version in versions if Version(good) <= version <= Version(bad)]
    return _in_order(chosen, good, bad)


def commits(checkout: Path, good: str, bad: str) -> list[str]:
    """The commits from `good` to `bad` along first parents, oldest first. Raises UserError as git says."""
    ends = [_git(checkout, "rev-parse", "--verify", f"{end}^{{commit}}") for end in (good, bad)]
    between = _git(checkout, "rev-list", "--first-parent", "--reverse", f"{ends[0]}..{ends[1]}").split()
    return _in_order([ends[0], *between], good, bad)


def _in_order(versions: list[str], good: str, bad: str) -> list[str]:
    if len(versions) < 2:
        raise UserError(f"--bad {bad} does not come after --good {good}")
    return versions


def _git(checkout: Path, *arguments: str) -> str:
    result = subprocess.run(["git", "-C", str(checkout), *arguments], capture_output=True, text=True, check=False)
    if result.returncode:
        raise UserError(f"git in {checkout}: {result.stderr.strip().splitlines()[-1]}")
    return result.stdout.strip()


def requirement_of_version(package: str) -> Callable[[str], Req]:
    """Versions as requirements."""
    return lambda version: parse_all([f"{package}=={version}"])[0]


def requirement_of_commit(package: str, checkout: Path) -> Callable[[str], Req]:
    """Commits as requirements: pip clones the checkout, which stays as it is."""
    url = f"git+{checkout.resolve().as_uri()}"
    return lambda commit: Req(package, f"{url}@{commit}", "", commit)


def _say(text: str) -> None:
    print(f"llmprune: {text}", file=sys.stderr, flush=True)
