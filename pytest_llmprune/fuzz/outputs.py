"""What a model may return: every container that a forward pass was seen to hand back, nested at will, and what stands
beside the tensors in it.

A `Nest` is Python that builds an output from a list `tensors`: what is tested and what a bug report shows are one text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

if TYPE_CHECKING:
    from torch import Tensor


def _keywords(items: Sequence[str]) -> str:
    return ", ".join(f"k{i}={item}" for i, item in enumerate(items))


def _first_and_rest(kind: str) -> Callable[[Sequence[str]], str]:
    return lambda items: f"{kind}({items[0]}, [{', '.join(items[1:])}])"


# those that stand first are what a failure shrinks to
OF_ANYTHING: dict[str, Callable[[Sequence[str]], str]] = {
    "tuple": lambda items: f"({', '.join(items)},)",
    "list": lambda items: f"[{', '.join(items)}]",
    "dict": lambda items: f"dict({_keywords(items)})",
    "OrderedDict": lambda items: f"collections.OrderedDict({_keywords(items)})",
    "namedtuple": _first_and_rest("Pair"),
    "dataclass": _first_and_rest("Holder"),
    "ModelOutput": _first_and_rest("Output"),
    "CausalLMOutputWithPast": lambda items: (
        f"CausalLMOutputWithPast(logits={items[0]}, hidden_states=[{', '.join(items[1:])}])"
    ),
    "namespace": lambda items: f"types.SimpleNamespace({_keywords(items)})",
    "object": lambda items: f"Attributes({', '.join(items)})",
    "deque": lambda items: f"collections.deque([{', '.join(items)}])",
    "generator": lambda items: f"(item for item in [{', '.join(items)}])",
}
OF_TENSORS: dict[str, Callable[[Sequence[str]], str]] = {
    "set": lambda items: f"{{{', '.join(items)}}}",
    "DynamicCache": lambda items: f"dynamic_cache({', '.join(items)})",
    "StaticCache": lambda items: f"static_cache({', '.join(items)})",
}
OF_ONE_TENSOR: dict[str, Callable[[Sequence[str]], str]] = {"PackedSequence": lambda items: f"packed({items[0]})"}
BESIDE = (
    "None",
    "0",
    "1.5",
    "True",
    "'text'",
    "b'bytes'",
    "()",
    "[]",
    "{}",
    "set()",
    "DynamicCache()",
    "Attributes(None)",
    "torch.Size([2, 3])",
    "torch.device('cpu')",
    "torch.float32",
    "torch.arange(3)",
    "numpy.zeros(2)",
    "tensors[0].shape",
    "tensors[0].detach()",
)


@dataclass(frozen=True)
class Nest:
    """An output as Python in terms of `tensors`, `count` of them, and of `pytest_llmprune.fuzz.parts`. is_tensor: it is
    one of them, as it stands.
    """

    source: str
    count: int = 1
    is_tensor: bool = False

    def __str__(self) -> str:
        return self.source

    def __call__(self, tensors: Sequence[Tensor]) -> Any:
        """The output with these tensors in it."""
        from . import parts

        return eval(self.source, vars(parts) | {"tensors": tensors})


def nests(count: int = 1, *, most_beside: int = 3, most_containers: int = 4) -> st.SearchStrategy[Nest]:
    """Outputs that hold `count` tensors, each at least once, in up to `most_containers` containers and among up to
    `most_beside` other things or repeated tensors. Shrinks to fewer of both.
    """
    tensors = [f"tensors[{i}]" for i in range(count)]
    place = st.integers(0, count + most_beside)
    kind = st.sampled_from(tuple(OF_ANYTHING | OF_TENSORS | OF_ONE_TENSOR))
    return st.builds(
        _nested,
        st.just(tensors),
        st.lists(st.tuples(st.sampled_from([*BESIDE, *tensors]), place), max_size=most_beside),
        st.lists(st.tuples(kind, place, place), max_size=most_containers - 1),
        kind,
    )


def nested_outputs(tensors: Sequence[Tensor]) -> st.SearchStrategy[Any]:
    """Outputs, as a model would return them, that hold all of `tensors`, each of shape [rows, columns]."""
    return nests(len(tensors)).map(lambda nest: nest(tensors))


def _nested(
    tensors: Sequence[str],
    beside: Sequence[tuple[str, int]],
    containers: Sequence[tuple[str, int, int]],
    outermost: str,
) -> Nest:
    """Put other things at places among the tensors, containers around some neighbours, and one around what is left."""
    items = [Nest(source, len(tensors), is_tensor=True) for source in tensors]
    for source, place in beside:
        items.insert(place, Nest(source, len(tensors), is_tensor=source in tensors))
    for kind, start, more in containers:
        start %= len(items)
        items[start : start + more + 1] = [_contained(kind, items[start : start + more + 1])]
    return items[0] if len(items) == 1 else _contained(outermost, items)


def _contained(kind: str, items: Sequence[Nest]) -> Nest:
    """These in a container of that kind, or in a tuple if it can't hold them."""
    kinds = OF_ANYTHING
    if all(item.is_tensor for item in items):
        kinds = kinds | OF_TENSORS | (OF_ONE_TENSOR if len(items) == 1 else {})
    return Nest(kinds.get(kind, kinds["tuple"])([item.source for item in items]), items[0].count)
