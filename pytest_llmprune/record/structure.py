"""What became of an item's structure between two records: the groups of its graphs, the channels that its pruning
removed, and its notes. The sidecars say it in words; without them, fingerprints in the notes still tell.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from ..errors import UserError
from ..graph.diff import differences
from ..graph.snapshot import read
from .recorder import graph_file, plan_file
from .schema import Item

SHOWN, INDICES_SHOWN = 3, 8
GROUPS, REMOVED = "groups ", "removed channels "  # how the notes with fingerprints begin


def structure_changes(before: Item, after: Item, old_details: Path, new_details: Path) -> Iterator[str]:
    """One sentence for each difference. details: the folders of the records' sidecars."""
    explained = []
    if groups := _groups(before, old_details, new_details):
        explained.append(GROUPS)
        yield f"other groups: {_first(groups)}"
    if removed := _removed(before, old_details, new_details):
        explained.append(REMOVED)
        yield f"other channels or heads are kept: {_first(removed)}"
    gone, new = (
        [note for note in a.notes if note not in b.notes and not note.startswith(tuple(explained))]
        for a, b in ((before, after), (after, before))
    )
    if gone or (new and (before.notes or before.measurements)):  # a test that failed early left nothing to differ from
        yield f"{', '.join(gone) or 'nothing'} before, {', '.join(new) or 'nothing'} now"


def _first(texts: list[str]) -> str:
    more = f"; and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return "; ".join(texts[:SHOWN]) + more


def _groups(item: Item, old_details: Path, new_details: Path) -> list[str]:
    """The differences of every graph of this item that both records keep, each once."""
    name = graph_file(item.key).removesuffix(".graph.json")
    found: dict[str, None] = {}
    for file in sorted(old_details.glob(f"{name}*.graph.json")):
        twin = new_details / file.name
        if twin.is_file() and twin.read_bytes() != file.read_bytes():
            try:
                found |= dict.fromkeys(differences(read(file).groups, read(twin).groups, " now"))
            except UserError as error:
                found[str(error)] = None
    return list(found)


def _removed(item: Item, old_details: Path, new_details: Path) -> list[str]:
    """Which channels or heads were removed before and are now, place by place."""
    files = [details / plan_file(item.key) for details in (old_details, new_details)]
    if not all(file.is_file() for file in files):
        return []
    try:
        before, after = (json.loads(file.read_text(encoding="utf-8")) for file in files)
    except ValueError as error:
        return [f"{files[0].name}: {error}"]
    places = dict.fromkeys((*before, *after))
    return [
        _said(place, before.get(place, []), after.get(place, []))
        for place in places
        if before.get(place) != after.get(place)
    ]


def _said(place: str, before: list[int], after: list[int]) -> str:
    if max(len(before), len(after)) <= INDICES_SHOWN:
        went, go = (", ".join(map(str, indices)) or "none" for indices in (before, after))
        return f"{place} {went} went before, {go} go now"
    return f"{place}: {len(before)} went before, {len(after)} go now, {len(set(after) - set(before))} of them others"
