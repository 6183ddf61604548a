"""Small networks whose coupled channels are known beforehand.

A `Network` is a list of blocks on one stream of channels. Each block writes Python for a module and says, beside it,
which channels it couples: what is tested, what a bug report shows and what must come out stand together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from .blocks import BLOCKS, HEAD
from .oracles import Cut
from .writer import Channel, Writer

if TYPE_CHECKING:
    import torch
    from torch import nn

TIME = 7  # more steps than the stream has channels: torch-pruning takes an axis as long as those for theirs
VALUES = 2  # of each step of an input that is not a token id
TOKENS = 5


@dataclass(frozen=True)
class Block:
    """One step of a network: a kind of `BLOCKS` and three small numbers, which each kind reads as it likes."""

    kind: str
    sizes: tuple[int, int, int] = (1, 1, 1)


@dataclass(frozen=True)
class Order:
    """Channels that may change places: of the Linear layer of this name, `block` neighbours at a time."""

    layer: str
    out: bool
    block: int


@dataclass(frozen=True)
class Network:
    """Blocks on a stream of `width` channels, behind an embedding or a Linear layer, before a Linear head that may be
    tied to the embedding.
    """

    width: int
    blocks: tuple[Block, ...] = ()
    embedded: bool = False
    tied: bool = False

    @cached_property
    def _written(self) -> Writer:
        w = Writer()
        if self.embedded:
            w.stream = w.channels(w.layer(f"nn.Embedding({TOKENS}, {self.width})"), "out", self.width)
        else:
            _, w.stream = w.linear(None, self.width)
        w.forward.append("x = self.layer0(x)")
        for block in self.blocks:
            BLOCKS[block.kind](w, *block.sizes)
        head = w.layer(f"nn.Linear({len(w.stream)}, {TOKENS}, bias=False)")
        w.couple(w.stream, w.channels(head, "in", len(w.stream)))
        if self.tied and self.embedded and w.stream[0][0] == "layer0":
            w.init.append(f"self.{head}.weight = self.layer0.weight")
        w.forward.append(f"return self.{head}(x)")
        return w

    @property
    def source(self) -> str:
        """Python of a class `Model`, in terms of `pytest_llmprune.fuzz.parts`."""
        return self._written.text()

    def build(self, seed: int = 0) -> nn.Module:
        """The network in evaluation mode, its weights drawn from `seed`."""
        import torch

        from . import parts

        names = dict(vars(parts))
        exec(self.source, names)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model: nn.Module = names["Model"]()
        return model.eval()

    def inputs(self, batch: int = 2, time: int = TIME, seed: int = 0) -> torch.Tensor:
        """Token ids [batch, time], or values [batch, time, 2]."""
        import torch

        generator = torch.Generator().manual_seed(seed)
        if self.embedded:
            return torch.randint(TOKENS, (batch, time), generator=generator)
        return torch.randn(batch, time, VALUES, generator=generator)

    def inputs_code(self, batch: int = 2, time: int = TIME) -> str:
        """Python of inputs of that shape."""
        if self.embedded:
            return f"torch.randint({TOKENS}, ({batch}, {time}))"
        return f"torch.randn({batch}, {time}, {VALUES})"

    @cached_property
    def takes(self) -> Mapping[Channel, frozenset[Channel]]:
        """For every channel that pruning can start from, all that must go when it does; the network's inputs and
        outputs left out.
        """
        takes = self._written.takes()
        return {start: together for start, together in takes.items() if not start[0].endswith(".weight")}

    @cached_property
    def cuts(self) -> tuple[Cut, ...]:
        """Prunings that have a mask: of one channel, or of a head, without a norm, and leaving no layer empty."""
        linear = {layer for layer, side, _ in self.takes if side == "in"} | ({"layer0"} if not self.embedded else set())
        starts = [[channel] for channel in self.takes if channel[0] in linear and channel not in self._of_heads]
        starts += self._written.heads
        return tuple(_cut(start) for start in starts if self._leaves_every_layer(start))

    @cached_property
    def orders(self) -> tuple[Order, ...]:
        """Where channels or heads can be put in another order from."""
        readers = dict.fromkeys(layer for layer, side, _ in self.takes if side == "in")
        found = [Order(layer, False, 1) for layer in readers if (layer, "in", 0) not in self._of_heads]
        return tuple(found + [Order(head[0][0], True, HEAD) for head in self._written.heads[:1]])

    @cached_property
    def _of_heads(self) -> frozenset[Channel]:
        return frozenset().union(*(self.takes[channel] for head in self._written.heads for channel in head))

    def _leaves_every_layer(self, start: Iterable[Channel]) -> bool:
        gone = frozenset().union(*(self.takes[channel] for channel in start))
        widths = Counter(channel[:2] for channel in self.takes)
        removed = Counter(channel[:2] for channel in gone)
        return not any(place[0] in self._written.norms or removed[place] == widths[place] for place in removed)


def _cut(channels: Sequence[Channel]) -> Cut:
    layer, side, _ = channels[0]
    return Cut(layer, side == "out", tuple(index for *_, index in channels))


def modules(kinds: Sequence[str] = tuple(BLOCKS), *, most: int = 4) -> st.SearchStrategy[Network]:
    """Networks of up to `most` blocks of these kinds. Shrinks to few, small blocks, of kinds that stand first."""
    size = st.integers(1, 3)
    blocks = st.builds(Block, st.sampled_from(tuple(kinds)), st.tuples(size, size, size))
    return st.builds(
        Network,
        width=st.integers(2, 6),
        blocks=st.lists(blocks, max_size=most).map(tuple),
        embedded=st.booleans(),
        tied=st.booleans(),
    )
