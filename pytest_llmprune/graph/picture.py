"""One decoder layer of a snapshot as a picture (SVG): both sides of every module in the colour and with the letter of
their group, so that a side that is in no group, or in a group of its own, stands out.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from .expected import norms_of, projections
from .names import ATTENTION, FFN, RESIDUAL, label, layer_of, listed, place_of
from .snapshot import GraphSnapshot, GroupSnapshot

TEMPLATE = Path(__file__).with_name("picture.svg")

# near Okabe and Ito's palette, which every kind of colour vision tells apart; dark enough for white letters
COLOURS = {RESIDUAL: "#0b62a4", ATTENTION: "#b34700", FFN: "#00745a"}
OTHERS, NO_GROUP = "#8a3d78", "#6b7280"

MARGIN, TOP = 24, 122
RAIL = 74  # where the residual stream runs, from top to bottom
STRIP, NORM, LINEAR, OPERATION = 46, 182, 206, 92
HEIGHT, STEP, GAP, CHARACTER = 52, 66, 28, 7


@dataclass(frozen=True)
class Hue:
    """How a group is drawn. letter: what stands beside the colour, for those who don't see it; empty: in no group."""

    letter: str
    colour: str
    title: str


NOWHERE = Hue("", NO_GROUP, "in no group")


@dataclass(frozen=True)
class Side:
    """The group of one side of a module, and how many channels of the module are in it. also: the letters of further
    groups that have it.
    """

    hue: Hue = NOWHERE
    channels: int = 0
    also: str = ""


@dataclass(frozen=True)
class Box:
    """A module. A side that carries no channels of the model (the vocabulary's) is None; a norm has only `out`."""

    name: str
    note: str
    x: float
    y: float
    width: int
    into: Side | None
    out: Side | None

    height: int = HEIGHT

    @property
    def middle(self) -> float:
        return self.y + self.height / 2

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def is_lost(self) -> bool:
        return all(side is None or side.hue is NOWHERE for side in (self.into, self.out))


@dataclass(frozen=True)
class Line:
    """Channels on their way, as an SVG path, in the colour of their group."""

    path: str
    hue: Hue
    width: float = 2


@dataclass
class Drawing:
    """What the template draws. legend: (x, hue). operations: (x, y, two lines of text). sums: their y."""

    title: str
    subtitle: str
    hues: list[Hue]
    stream: Hue
    legend: list[tuple[int, Hue]] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    operations: list[tuple[float, float, str, str]] = field(default_factory=list)
    sums: list[float] = field(default_factory=list)
    width: float = 0
    height: float = 0


def picture(snapshot: GraphSnapshot) -> str:
    """The SVG of the first layer that is unlike most, or of layer 0 if all are alike. It needs no other file."""
    from jinja2 import Environment

    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        TEMPLATE.read_text(encoding="utf-8")
    )
    sizes = {"margin": MARGIN, "rail": RAIL, "strip_width": STRIP, "operation": OPERATION}
    return template.render(d=_Painter(snapshot).paint(), **sizes)


def unlike_layers(snapshot: GraphSnapshot) -> list[int]:
    """The layers whose members and groups are not those of most layers."""
    looks: dict[int, list[str]] = {layer: [] for layer in range(snapshot.model.layers)}
    for group in snapshot.groups:
        part, home = place_of(group.keys)
        for member in group.members:
            layer = layer_of(member.name)
            if layer in looks:
                title = part if home in (None, layer) else f"{home} {part}"
                looks[layer].append(f"{title} {label(*member.key)} {member.channels} {member.index_map}")
    usual = Counter(map(tuple, map(sorted, looks.values()))).most_common(1)[0][0]
    return [layer for layer, look in looks.items() if tuple(sorted(look)) != usual]


class _Painter:
    """Lays out one layer: the residual stream runs down on the left, attention and FFN hang on it to the right."""

    def __init__(self, snapshot: GraphSnapshot) -> None:
        self.name, self.model = snapshot.name, snapshot.model
        self.unlike = unlike_layers(snapshot)
        self.layer = self.unlike[0] if self.unlike else 0
        self.prefix = f"model.layers.{self.layer}"
        self.hues: list[Hue] = []
        self.sides: dict[tuple[str, str], Side] = {}
        for group in sorted(snapshot.groups, key=lambda group: -len(group.members)):
            drawn = [member for member in group.members if layer_of(member.name) in (None, self.layer)]
            if drawn:
                hue = self._hue(group)
                for member in drawn:
                    side = self.sides.get(member.key)
                    self.sides[member.key] = (
                        replace(side, also=f"{side.also}+{hue.letter}") if side else Side(hue, member.channels)
                    )

    def _hue(self, group: GroupSnapshot) -> Hue:
        """The colour of its part for the largest group of each part, another for those that should not be there."""
        part, layer = place_of(group.keys)
        taken = {hue.letter for hue in self.hues}
        if layer in (None, self.layer) and part[0].upper() not in taken:
            hue = Hue(part[0].upper(), COLOURS[part], f"{part} group")
        else:
            number = sum(letter.isdigit() for letter in taken) + 1
            hue = Hue(str(number), OTHERS, f"another group: {listed(group.keys)}")
        self.hues.append(hue)
        return hue

    def paint(self) -> Drawing:
        model = self.model
        alike = f"layers unlike the rest: {len(self.unlike)}" if self.unlike else "all layers are alike"
        heads = f"{model.heads} query heads on {model.kv_heads} kv heads of {model.head_dim} channels"
        drawing = Drawing(
            f"{self.name}: decoder layer {self.layer} of {model.layers}",
            f"{model.architecture}; {heads}; {alike}",
            [*self.hues, NOWHERE],
            self._side("model.embed_tokens", "out").hue,
        )
        norms, (attention, ffn) = norms_of(model.model_type), projections(model.model_type)
        half = len(norms) // 2
        embedding = Box("embed_tokens", "", MARGIN, TOP, LINEAR, None, self._side("model.embed_tokens", "out"))
        y = embedding.y + HEIGHT + 26.0
        sharing = f"{model.heads // model.kv_heads} q per kv"
        y = self._block(drawing, y, "self_attn", norms[:half], attention, "o_proj", ("attention", sharing))
        y = self._block(drawing, y, "mlp", norms[half:], ffn, "down_proj", ("act(gate)", "times up"))
        norm = self._norm("model.norm.weight", MARGIN, y)
        tied = "tied to embed_tokens" if model.tied else ""
        head = Box("lm_head", tied, norm.right + GAP, y, LINEAR, self._side("lm_head", "in"), None)
        drawing.lines.insert(0, Line(f"M{RAIL} {embedding.y + HEIGHT} V{y - 2}", drawing.stream, 5))
        drawing.lines.append(_flow(norm, head))
        drawing.boxes += [embedding, norm, head]
        drawing.height = y + HEIGHT + MARGIN
        drawing.width = max(box.right for box in drawing.boxes) + 2 * MARGIN
        self._legend(drawing)
        return drawing

    def _legend(self, drawing: Drawing) -> None:
        nowhere = any(side is not None and side.hue is NOWHERE for box in drawing.boxes for side in (box.into, box.out))
        x = MARGIN
        for hue in sorted(self.hues, key=lambda hue: "RAF123456789".index(hue.letter[0])) + [NOWHERE] * nowhere:
            drawing.legend.append((x, hue))
            x += 48 + CHARACTER * len(hue.title)

    def _block(
        self,
        drawing: Drawing,
        y: float,
        block: str,
        norms: tuple[str, ...],
        names: tuple[str, ...],
        last: str,
        operation: tuple[str, str],
    ) -> float:
        """Draw attention or FFN from `y` on. Returns where the next thing may begin."""
        bottom = y + STEP * (len(names) - 1) + HEIGHT
        middle = (y + bottom) / 2
        before = self._norm(f"{self.prefix}.{norms[0]}.weight", RAIL + 42, middle - HEIGHT / 2)
        x = before.right + GAP
        readers = [self._linear(block, name, x, y + STEP * place) for place, name in enumerate(names)]
        x += LINEAR + GAP
        drawing.operations.append((x, middle, *operation))
        writer = self._linear(block, last, x + OPERATION + GAP, middle - HEIGHT / 2)
        drawing.boxes += [before, *readers, writer]
        drawing.lines.append(Line(f"M{RAIL} {middle} H{before.x - 2}", drawing.stream))
        for reader in readers:
            drawing.lines += [_flow(before, reader), Line(_curve(reader.right, reader.middle, x, middle), _out(reader))]
        drawing.lines.append(Line(f"M{x + OPERATION} {middle} H{writer.x - 2}", _into(writer)))
        end = writer
        if len(norms) == 2:
            end = self._norm(f"{self.prefix}.{norms[1]}.weight", writer.right + GAP, middle - HEIGHT / 2)
            drawing.boxes.append(end)
            drawing.lines.append(_flow(writer, end))
        back = bottom + 24
        drawing.lines.append(Line(f"M{end.right} {middle} h16 V{back} H{RAIL + 13}", _out(end)))
        drawing.sums.append(back)
        return back + 34

    def _side(self, name: str, side: str) -> Side:
        return self.sides.get((name, side), Side())

    def _linear(self, block: str, name: str, x: float, y: float) -> Box:
        path = f"{self.prefix}.{block}.{name}"
        return Box(name, self._heads(name), x, y, LINEAR, self._side(path, "in"), self._side(path, "out"))

    def _norm(self, path: str, x: float, y: float) -> Box:
        words = path.split(".")[-2].rpartition("_")
        return Box(words[0] or words[2], words[2] if words[0] else "", x, y, NORM, None, self._side(path, "out"))

    def _heads(self, name: str) -> str:
        query, kv = self.model.heads, self.model.kv_heads
        heads = {"q_proj": query, "k_proj": kv, "v_proj": kv, "o_proj": query, "qkv_proj": f"{query} + 2 · {kv}"}
        return f"{heads[name]} heads" if name in heads else ""


def _into(box: Box) -> Hue:
    return box.into.hue if box.into else NOWHERE


def _out(box: Box) -> Hue:
    return box.out.hue if box.out else NOWHERE


def _flow(source: Box, target: Box) -> Line:
    path = _curve(source.right, source.middle, target.x, target.middle)
    return Line(path, _into(target) if target.into else _out(source))


def _curve(x: float, y: float, to_x: float, to_y: float) -> str:
    """A path that leaves and arrives level."""
    half = (x + to_x) / 2
    return f"M{x} {y} C{half} {y} {half} {to_y} {to_x - 2} {to_y}"
