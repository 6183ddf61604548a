"""What is different between two sets of groups, in sentences: of the expected structure and a traced graph, or of two
snapshots.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields

from .names import Finding, fold, label, layer_of, listed, place_of, title
from .snapshot import GraphSnapshot, GroupSnapshot

Key = tuple[str, str]

DIFFERENCES_SHOWN = 4


def differences(wanted: Sequence[GroupSnapshot], found: Sequence[GroupSnapshot], where: str = "") -> list[str]:
    """One readable line for every member of `wanted` that is missing in `found`, in another group, or there with other
    channels, and for everything that `found` has too much; equal lines are folded over layers. Empty: they are equal.

    where: what a sentence calls `found`, e.g. ` in B`.
    """
    return fold(_Comparison(wanted, found, where).findings())


def other_model(a: GraphSnapshot, b: GraphSnapshot) -> str:
    """The first values in which two snapshots' models differ, `hidden 576 and 960`; empty if they don't."""
    values = ((field.name, getattr(a.model, field.name), getattr(b.model, field.name)) for field in fields(a.model))
    unequal = [f"{name} {of_a} and {of_b}" for name, of_a, of_b in values if of_a != of_b]
    return ", ".join(unequal[:DIFFERENCES_SHOWN])


class _Comparison:
    """Holds every wanted group against its match: the found group that has most of its members."""

    def __init__(self, wanted: Sequence[GroupSnapshot], found: Sequence[GroupSnapshot], where: str) -> None:
        self.wanted, self.found, self.where = wanted, found, where
        self.wanted_homes, self.found_homes = _homes(wanted), _homes(found)
        self.matches = [self._match(group) for group in wanted]

    def _match(self, group: GroupSnapshot) -> int | None:
        shared = Counter(index for key in group.keys for index in self.found_homes.get(key, ()))
        return max(shared, key=lambda index: (shared[index], -len(self.found[index].members)), default=None)

    def findings(self) -> Iterator[Finding]:
        for group, match in zip(self.wanted, self.matches, strict=True):
            if match is None:
                yield self._finding(group, (), f"all of it is missing{self.where}")
                continue
            first = self._first_of(match)
            if group is not first:
                if set(group.keys) <= set(first.keys):
                    yield self._finding(group, (), f"one group too few{self.where}: {listed(group.keys)}")
                    continue
                yield self._finding(group, (), f"one group with {self._title(first, group)}{self.where}")
            there = set(self.found[match].keys)
            yield from self._absent(group, [key for key in group.keys if key not in there])
            yield from self._channels(group, self.found[match])
            if group is first:
                yield from self._strangers(group, match)
        for index in sorted(set(range(len(self.found))) - set(self.matches)):
            group = self.found[index]
            if any(self._is_unexplained(key) for key in group.keys):
                yield self._finding(group, (), f"one group too many{self.where}: {listed(group.keys)}")

    def _first_of(self, match: int) -> GroupSnapshot:
        """The largest of the wanted groups that have the same match."""
        groups = [group for group, its_match in zip(self.wanted, self.matches, strict=True) if its_match == match]
        return max(groups, key=lambda group: len(group.members))

    def _absent(self, group: GroupSnapshot, keys: Sequence[Key]) -> Iterator[Finding]:
        """The members that the match lacks: missing altogether, or, by where they are, in another group."""
        elsewhere: dict[tuple[int, int | None], list[Key]] = {}
        for key in keys:
            homes = self.found_homes.get(key)
            if homes:
                elsewhere.setdefault((homes[0], layer_of(key[0])), []).append(key)
            else:
                yield self._finding(group, [key], f"{label(*key)} is missing{self.where}")
        for (home, _), moved in elsewhere.items():
            one = len(moved) == 1
            text = f"{listed(moved)} {'is' if one else 'are'} in"
            if set(self.found[home].keys) <= set(group.keys):
                text += f" a group of {'its' if one else 'their'} own{self.where}"
            else:
                others = [key for key in self.found[home].keys if key not in moved]
                text += f" {self._title(self.found[home], group)}{self.where}, with {listed(others)}"
            yield self._finding(group, moved, text)

    def _channels(self, group: GroupSnapshot, match: GroupSnapshot) -> Iterator[Finding]:
        there = {member.key: member for member in match.members}
        pairs = [(member, there[member.key]) for member in group.members if member.key in there]
        resized = [(want, have) for want, have in pairs if want.channels != have.channels]
        for want, have in resized:
            text = f"{label(*want.key)} {want.channels} -> {have.channels} channels"
            yield self._finding(group, [want.key], text)
        if not resized:  # with other widths come other maps, which say nothing more
            for want, have in pairs:
                if want.index_map != have.index_map:
                    text = f"other channels of {label(*want.key)} (index map)"
                    yield self._finding(group, [want.key], text)

    def _strangers(self, group: GroupSnapshot, match: int) -> Iterator[Finding]:
        """What the match has and the wanted group has not: new members, and members of another group that are in both.
        Of members that moved here, the group that they left tells.
        """
        for key in sorted(set(self.found[match].keys) - set(group.keys)):
            homes = self.wanted_homes.get(key, ())
            if not homes:
                text = "is new" if self.where else "does not belong here"
                yield self._finding(group, [key], f"{label(*key)} {text}{self.where}")
            for home in homes:
                if self.matches[home] != match and self._is_in_match(key, home):
                    of = self._title(self.wanted[home], group)
                    yield self._finding(group, [key], f"{label(*key)} of {of} is here too{self.where}")

    def _is_in_match(self, key: Key, home: int) -> bool:
        return self.matches[home] in self.found_homes[key]

    def _is_unexplained(self, key: Key) -> bool:
        """Whether nothing has been said of a member of an unmatched group: it is new, or in two groups."""
        homes = self.wanted_homes.get(key, ())
        return not homes or any(self._is_in_match(key, home) for home in homes)

    def _finding(self, group: GroupSnapshot, keys: Iterable[Key], text: str) -> Finding:
        """A finding about a group, or, as the residual group spans the layers, about its members in one layer."""
        part, layer = place_of(group.keys)
        own = [layer_of(name) for name, _ in keys]
        return Finding(part, own[0] if layer is None and own else layer, text)

    def _title(self, other: GroupSnapshot, group: GroupSnapshot) -> str:
        """The title of another group as `group` would say it, so that equal findings in many layers read the same."""
        part, layer = place_of(other.keys)
        own_part, own_layer = place_of(group.keys)
        if (part, layer) == (own_part, own_layer):
            return "another group"
        return f"the {part} group" if layer in (None, own_layer) else title(part, [layer])


def _homes(groups: Sequence[GroupSnapshot]) -> dict[Key, list[int]]:
    homes: dict[Key, list[int]] = {}
    for index, group in enumerate(groups):
        for key in group.keys:
            homes.setdefault(key, []).append(index)
    return homes
