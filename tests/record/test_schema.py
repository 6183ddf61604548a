"""A record goes to JSON and comes back; what is no record is refused in one line."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from pytest_llmprune.errors import UserError
from pytest_llmprune.record.schema import Item, Key, RunRecord, dumps, from_properties, loads, to_properties

KEY = Key("test_quality", "test_quality", "tiny", "ffn", 0.2, "taylor")
VERDICT = {
    "measurement": "ppl_ratio",
    "operator": "<=",
    "threshold": 2.5,
    "value": 3.0,
    "low": 2.9,
    "high": 3.1,
    "outcome": "fail",
}
ITEM = Item(
    KEY,
    "failed",
    1.5,
    {"ppl_ratio": 3.0},
    {"ppl_ratio": (2.9, 3.1)},
    (VERDICT,),
    {"window": 256},
    ("a note",),
    "worst",
    "d.json",
    sources={"dense.ppl": "cached", "dense.coherence": "measured"},
)
RECORD = RunRecord(
    {"torch": "2"},
    {"suites": "suites", "spec_of": {}, "arguments": " --llmprune-seed 3"},
    ("gqa-map",),
    (KEY,),
    (ITEM,),
    {"meta": 2},
    "now",
    1,
)


def test_it_comes_back_from_json_as_it_was():
    assert loads(dumps(RECORD), "r") == RECORD


def test_an_item_crosses_user_properties_as_scalars_and_text():
    properties = to_properties(ITEM)
    assert all(isinstance(value, (str, float, int)) for _, value in properties)
    assert ("llmprune.measurement.ppl_ratio", 3.0) in properties
    assert from_properties([("other", 1), *properties], "failed", 1.5) == ITEM
    assert from_properties([("other", 1)], "passed", 0) is None


def test_what_was_planned_and_not_done_is_missing():
    other = Key("test_graph", "test_groups", "tiny")
    assert replace(RECORD, planned=(KEY, other)).missing == (other,)


def test_a_nan_can_not_stand_in_a_record():
    with pytest.raises(ValueError, match="JSON compliant"):
        dumps(replace(RECORD, items=(replace(ITEM, measurements={"ppl": float("nan")}),)))


def _damaged(change):
    values = json.loads(dumps(RECORD))
    change(values)
    return json.dumps(values)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no record"),
        ("{}", "no record"),
        ("[1]", "no record"),
        (dumps(RECORD)[:-30], "no record"),
        (_damaged(lambda v: v.update(schema=99)), "schema 99"),
        (_damaged(lambda v: v.pop("items")), "damaged"),
        (_damaged(lambda v: v["items"][0].pop("intervals")), "damaged"),
        (_damaged(lambda v: v["planned"][0].update(colour="red")), "damaged"),
    ],
)
def test_what_is_no_record_is_refused_in_one_line(text, says):
    with pytest.raises(UserError, match=says) as caught:
        loads(text, "r.json")
    assert str(caught.value).startswith("r.json: ")
    assert "\n" not in str(caught.value)
