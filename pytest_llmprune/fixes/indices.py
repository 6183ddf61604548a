"""What several fixes add to torch_pruning: the indices of a group's member as two lists of numbers."""

from __future__ import annotations

from .patch import Addition

INDICES = Addition(
    "_helpers",
    '''
class _HybridIndices:
    """Indices of channels and of the root layer's channels that they come from, side by side: a sequence of _HybridIndex
    that makes each one when it is asked for."""

    def __init__(self, idx, root_idx):
        self.idx, self.root_idx = idx, root_idx

    def __len__(self):
        return len(self.idx)

    def __iter__(self):
        return map(_HybridIndex, self.idx, self.root_idx)

    def __getitem__(self, k):
        if isinstance(k, slice):
            return list(self)[k]
        return _HybridIndex(self.idx[k], self.root_idx[k])

    def __eq__(self, other):
        if isinstance(other, _HybridIndices):
            return self is other or (self.idx == other.idx and self.root_idx == other.root_idx)
        return list(self) == other

    def __add__(self, other):
        return [*self, *other]

    def __radd__(self, other):
        return [*other, *self]
''',
)
