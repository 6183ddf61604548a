"""The kinds of blocks that networks are made of. Each reads three small numbers as it likes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .writer import Channel, Writer

HEAD = 2  # channels of a head


def _linear(w: Writer, out: int, *_: int) -> None:
    name, w.stream = w.linear(w.stream, out + 1)
    w.forward.append(f"x = self.{name}(x)")


def _activation(w: Writer, kind: int, *_: int) -> None:
    w.forward.append(("x = F.gelu(x)", "x = torch.tanh(x) * 2", "x = F.silu(x) + 1")[kind % 3])


def _nested(w: Writer, out: int, kind: int, *_: int) -> None:
    """A module of its own whose output is a tuple or a dict."""
    module, item = (("InTuple", "[0]"), ("InDict", '["hidden"]'))[kind % 2]
    name, w.stream = w.linear(w.stream, out + 1, module)
    w.forward.append(f"x = self.{name}(x){item}")


def _norm(w: Writer, kind: int, *_: int) -> None:
    name = w.norm(w.stream, ("nn.LayerNorm", "RMSNorm")[kind % 2])
    w.forward.append(f"x = self.{name}(x)")


def _residual(w: Writer, hidden: int, *_: int) -> None:
    up, inner = w.linear(w.stream, hidden + 1)
    w.forward.append(f"x = x + {_back(w, inner)}(F.relu(self.{up}(x)))")


def _gated(w: Writer, hidden: int, *_: int) -> None:
    gate, first = w.linear(w.stream, hidden + 1)
    up, second = w.linear(w.stream, hidden + 1)
    w.couple(first, second)
    w.forward.append(f"x = x + {_back(w, first)}(F.silu(self.{gate}(x)) * self.{up}(x))")


def _fused_gated(w: Writer, hidden: int, kind: int, *_: int) -> None:
    """Gate and up in one layer, told apart in every way there is."""
    hidden += 1
    both, inner = w.linear(w.stream, 2 * hidden)
    w.couple(inner[:hidden], inner[hidden:])
    down = _back(w, inner[:hidden])
    parts = ("chunk(2, dim=-1)", "chunk(2, dim=2)", f"split({down}.in_features, dim=2)")[kind % 3]
    w.forward += [f"gate, up = self.{both}(x).{parts}", f"x = x + {down}(F.silu(gate) * up)"]


def _concatenation(w: Writer, first: int, second: int, kind: int) -> None:
    a, a_out = w.linear(w.stream, first)
    b, b_out = w.linear(w.stream, second)
    w.stream = a_out + b_out
    w.forward.append(f"x = torch.cat([self.{a}(x), self.{b}(x)], dim={(-1, 2)[kind % 2]})")


def _split(w: Writer, first: int, second: int, kind: int) -> None:
    whole, out = w.linear(w.stream, first + second)
    a, a_out = w.linear(out[:first], first + 1)
    b, b_out = w.linear(out[first:], first + 1)
    w.couple(a_out, b_out)
    w.stream = a_out
    sizes = f"[self.{a}.in_features, self.{b}.in_features]"
    w.forward.append(f"a, b = self.{whole}(x).split({sizes}, dim={(-1, 2)[kind % 2]})")
    w.forward.append(f"x = self.{a}(a) + self.{b}(b)")


def _slice(w: Writer, first: int, second: int, kind: int) -> None:
    """Like a split, written as slices; the second begins where the first ends, or at its end counted from behind."""
    whole, out = w.linear(w.stream, first + second)
    a, a_out = w.linear(out[:first], first + 1)
    b, b_out = w.linear(out[first:], first + 1)
    w.couple(a_out, b_out)
    w.stream = a_out
    start = (f"self.{a}.in_features", f"-self.{b}.in_features")[kind % 2]
    w.forward.append(f"y = self.{whole}(x)")
    w.forward.append(f"x = self.{a}(y[..., :self.{a}.in_features]) + self.{b}(y[..., {start}:])")


def _other_axes(w: Writer, kind: int, *_: int) -> None:
    w.forward.append(
        (
            "x = torch.cat([x, x], dim=1)[:, : x.shape[1]]",
            "x = torch.cat([x, x], dim=-2)[:, -x.shape[1] :]",
            "x = torch.cat(x.split(4, dim=1), dim=1)",
            "x = torch.stack(x.unbind(1), dim=1)",
        )[kind % 4]
    )


def _reshape(w: Writer, kind: int, *_: int) -> None:
    w.forward.append(
        (
            "x = x.transpose(1, 2).contiguous().transpose(1, 2)",
            "x = x.flatten(0, 1).view(x.shape)",
            "x = x.reshape(x.shape[0], x.shape[1], -1, 1).flatten(2)",
            "x = x.unsqueeze(2).transpose(1, 2).squeeze(1)",
        )[kind % 4]
    )


def _shared(w: Writer, *_: int) -> None:
    name, out = w.linear(w.stream, len(w.stream))
    w.couple(w.stream, out)
    w.forward.append(f"x = self.{name}(F.relu(self.{name}(x)))")


def _attention(w: Writer, kv_heads: int, copies: int, kind: int) -> None:
    """Attention with as many kv heads as query heads, fewer, or one, in eager or sdpa form, rotated or not."""
    _attend(w, kv_heads, copies, kind)


def _normed_attention(w: Writer, kv_heads: int, copies: int, kind: int) -> None:
    """The same with norms of single heads on q and k, as Qwen3 has them. Not with two kv heads: without one of them the
    norm of k would have a channel for each of the layer's, and so another part in the graph.
    """
    _attend(w, kv_heads + (kv_heads == 2), copies, kind, normed=True)


def _attend(w: Writer, kv_heads: int, copies: int, kind: int, normed: bool = False) -> None:
    q, q_out = w.linear(w.stream, kv_heads * copies * HEAD)
    k, k_out = w.linear(w.stream, kv_heads * HEAD)
    v, v_out = w.linear(w.stream, kv_heads * HEAD)
    query, key = f"heads(self.{q}(x))", f"heads(self.{k}(x))"
    if normed:
        query, key = f"self.{_head_norm(w, q_out)}({query})", f"self.{_head_norm(w, k_out)}({key})"
    _couple_heads(w, q_out, k_out, v_out)
    form, rotated = (("eager", True), ("sdpa", True), ("eager", False), ("sdpa", False))[kind % 4]
    if rotated:
        query, key = f"rotated({query})", f"rotated({key})"
    w.forward.append(f"x = x + {_back(w, q_out)}({form}({query}, {key}, heads(self.{v}(x))))")


def _head_norm(w: Writer, reads: list[Channel]) -> str:
    """Over a single head it has a channel for each of the layer's; over several none that could go alone."""
    return w.norm(reads, "RMSNorm") if len(reads) == HEAD else w.layer(f"RMSNorm({HEAD})")


def _fused_attention(w: Writer, heads: int, kind: int, *_: int) -> None:
    """q, k and v in one layer, as many heads each: of a part of a split the fix gqa-map does not know the width."""
    width = heads * HEAD
    qkv, out = w.linear(w.stream, 3 * width)
    _couple_heads(w, out[:width], out[width : 2 * width], out[2 * width :])
    o = _back(w, out[:width])
    parts = ("chunk(3, dim=-1)", f"split({o}.in_features, dim=2)")[kind % 2]
    w.forward.append(f"q, k, v = map(heads, self.{qkv}(x).{parts})")
    w.forward.append(f"x = x + {o}(eager(rotated(q), rotated(k), v))")


def _couple_heads(w: Writer, q: Sequence[Channel], k: Sequence[Channel], v: Sequence[Channel]) -> None:
    """A channel of a head goes with the same channel of k and v, whose heads several query heads may share."""
    copies = len(q) // len(k)
    w.couple(k, v)
    for start in range(0, len(k), HEAD):
        w.heads.append(list(k[start : start + HEAD]))
        for copy in range(copies):
            queries = q[start * copies + copy * HEAD :][:HEAD]
            if copies == 1:
                w.couple(queries, k[start : start + HEAD])
            else:
                w.drag(k[start : start + HEAD], queries)


def _back(w: Writer, reads: Sequence[Channel]) -> str:
    """A layer from these channels back to the stream, which it is added to."""
    name, out = w.linear(reads, len(w.stream))
    w.couple(w.stream, out)
    return f"self.{name}"


BLOCKS: dict[str, Callable[..., None]] = {
    "linear": _linear,
    "activation": _activation,
    "residual": _residual,
    "gated": _gated,
    "norm": _norm,
    "concatenation": _concatenation,
    "split": _split,
    "slice": _slice,
    "fused gated": _fused_gated,
    "reshape": _reshape,
    "other axes": _other_axes,
    "shared": _shared,
    "nested": _nested,
    "attention": _attention,
    "normed attention": _normed_attention,
    "fused attention": _fused_attention,
}
