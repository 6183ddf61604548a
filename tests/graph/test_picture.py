"""The picture shows what the snapshot says, what is missing included."""

from __future__ import annotations

import dataclasses
from xml.etree import ElementTree

import pytest

from pytest_llmprune.graph.picture import picture


def _boxes(svg):
    """{box title: [texts in it]} of a picture."""
    space = "{http://www.w3.org/2000/svg}"
    groups = ElementTree.fromstring(svg).iter(f"{space}g")
    return {g.find(f"{space}title").text.strip(): [text.text for text in g.iter(f"{space}text")] for g in groups}


def _texts(svg):
    return [text.text for text in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_every_module_of_a_layer_is_a_box_with_letter_and_channels_of_its_groups(snapshot):
    svg = picture(snapshot)
    boxes = _boxes(svg)
    assert list(boxes) == [
        *("input layernorm", "q_proj 4 heads", "k_proj 2 heads", "v_proj 2 heads", "o_proj 4 heads"),
        *("post_attention layernorm", "gate_proj", "up_proj", "down_proj", "embed_tokens", "norm", "lm_head"),
    ]
    assert boxes["k_proj 2 heads"] == ["R", "64", "A", "32", "k_proj", "2 heads"]
    assert boxes["down_proj"][:4] == ["F", "96", "R", "64"]
    assert boxes["input layernorm"][:2] == ["R", "64"]
    assert {"residual group", "attention group", "FFN group", "2 q per kv"} <= set(_texts(svg))
    assert "in no group" not in _texts(svg)
    assert "all layers are alike" in svg


def test_a_missing_member_is_drawn_without_a_group_in_the_layer_that_lacks_it(snapshot, planted, without):
    groups = planted(snapshot.groups, without("layers.7.self_attn.v_proj", "out"))
    svg = picture(dataclasses.replace(snapshot, groups=groups))
    assert _boxes(svg)["v_proj 2 heads"][:4] == ["R", "64", "in no", "group"]
    assert {"small: decoder layer 7 of 12", "in no group"} <= set(_texts(svg))
    assert "layers unlike the rest: 1" in svg


def test_a_missing_module_is_still_a_box(snapshot, planted):
    groups = planted(snapshot.groups, lambda m: None if m.name.endswith("up_proj") else m)
    boxes = _boxes(picture(dataclasses.replace(snapshot, groups=groups)))
    assert boxes["up_proj"][:4] == ["in no", "group", "in no", "group"]


def test_a_member_in_a_group_of_its_own_has_another_letter(snapshot, planted, without):
    k = ("model.layers.0.self_attn.k_proj", "out")
    rest = planted(snapshot.groups, without(k[0], "out"))
    alone = planted(snapshot.groups, lambda m: m if m.key == k else None)
    svg = picture(dataclasses.replace(snapshot, groups=rest + alone))
    assert _boxes(svg)["k_proj 2 heads"][:4] == ["R", "64", "1", "32"]
    assert "another group: k_proj.out" in _texts(svg)


def test_a_member_in_two_groups_has_both_letters(snapshot, planted):
    k = ("model.layers.0.self_attn.k_proj", "out")
    again = planted(snapshot.groups, lambda m: m if m.key == k else None)
    svg = picture(dataclasses.replace(snapshot, groups=snapshot.groups + again))
    assert _boxes(svg)["k_proj 2 heads"][:4] == ["R", "64", "A+1", "32"]


@pytest.mark.parametrize(
    ("model_type", "boxes"),
    [
        ("phi3", {"qkv_proj 4 + 2 · 2 heads", "gate_up_proj"}),
        ("gemma2", {"pre_feedforward layernorm", "post_feedforward layernorm", "post_attention layernorm"}),
    ],
)
def test_other_families_have_their_own_boxes(snapshot, model_type, boxes):
    model = dataclasses.replace(snapshot.model, model_type=model_type)
    assert boxes <= set(_boxes(picture(dataclasses.replace(snapshot, model=model))))


def test_a_name_is_escaped(snapshot):
    svg = picture(dataclasses.replace(snapshot, name='<script>alert("x")</script>'))
    assert "<script>" not in svg
    assert '<script>alert("x")</script>: decoder layer 0 of 12' in _texts(svg)
