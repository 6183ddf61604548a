"""Writes a network block by block, and notes beside each line which channels it couples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

Channel = tuple[str, str, int]  # (layer or parameter, in or out, index); norms count as out


@dataclass
class Writer:
    """The lines of a module so far, and what is known of its channels.

    stream: the channels that the variable `x` has, next to be read. norms: layers that average over their channels.
    heads: channels that stand for a head each, by the head: they go together or not at all.
    """

    init: list[str] = field(default_factory=list)
    forward: list[str] = field(default_factory=list)
    stream: list[Channel] = field(default_factory=list)
    norms: set[str] = field(default_factory=set)
    heads: list[list[Channel]] = field(default_factory=list)
    _parents: dict[Channel, Channel] = field(default_factory=dict)
    _drags: list[tuple[Channel, Channel]] = field(default_factory=list)

    def layer(self, code: str) -> str:
        """Add a submodule and return its name."""
        name = f"layer{len(self.init)}"
        self.init.append(f"self.{name} = {code}")
        return name

    def linear(self, reads: Sequence[Channel] | None, width: int, kind: str = "nn.Linear") -> tuple[str, list[Channel]]:
        """Add a Linear layer that reads these channels (None: the network's input). Return its name and outputs."""
        name = self.layer(f"{kind}({2 if reads is None else len(reads)}, {width})")
        owner = name if kind == "nn.Linear" else f"{name}.linear"
        if reads is not None:
            self.couple(reads, self.channels(owner, "in", len(reads)))
        return name, self.channels(owner, "out", width)

    def norm(self, reads: Sequence[Channel], kind: str) -> str:
        """Add a norm over these channels and return its name."""
        name = self.layer(f"{kind}({len(reads)})")
        owner = f"{name}.weight" if kind == "RMSNorm" else name
        self.norms.add(owner)
        self.couple(reads, self.channels(owner, "out", len(reads)))
        return name

    def channels(self, name: str, side: str, width: int) -> list[Channel]:
        """The channels of one side of a layer."""
        found = [(name, side, i) for i in range(width)]
        for channel in found:
            self._parents.setdefault(channel, channel)
        return found

    def couple(self, first: Sequence[Channel], second: Sequence[Channel]) -> None:
        """Channel by channel, these go together."""
        for a, b in zip(first, second, strict=True):
            self._parents[self._root(a)] = self._root(b)

    def drag(self, first: Sequence[Channel], second: Sequence[Channel]) -> None:
        """Channel by channel, the first takes the second along, but not the other way round: it has other readers."""
        self._drags += zip(first, second, strict=True)

    def takes(self) -> dict[Channel, frozenset[Channel]]:
        """For every channel all that go when it goes."""
        classes: dict[Channel, set[Channel]] = {}
        for channel in self._parents:
            classes.setdefault(self._root(channel), set()).add(channel)
        dragged: dict[Channel, set[Channel]] = {root: set() for root in classes}
        for a, b in self._drags:
            dragged[self._root(a)].add(self._root(b))
        whole = {root: frozenset().union(*(classes[r] for r in self._reached(root, dragged))) for root in classes}
        return {channel: whole[self._root(channel)] for channel in self._parents}

    def _root(self, channel: Channel) -> Channel:
        while self._parents[channel] != channel:
            channel = self._parents[channel]
        return channel

    @staticmethod
    def _reached(root: Channel, dragged: dict[Channel, set[Channel]]) -> Iterator[Channel]:
        seen, stack = {root}, [root]
        while stack:
            yield (here := stack.pop())
            stack += dragged[here] - seen
            seen |= dragged[here]

    def text(self) -> str:
        """The module as a class `Model`."""
        lines = ["class Model(nn.Module):", "    def __init__(self):", "        super().__init__()"]
        lines += [f"        {line}" for line in self.init]
        lines += ["", "    def forward(self, x):", *(f"        {line}" for line in self.forward)]
        return "\n".join(lines) + "\n"
