"""broken-ties: a tied lm_head and embedding are two tensors after pruning, and a saved checkpoint loses one of them.

Pruning replaces the parameters of a group's layers one by one. The fix notes which layers of the group share a
parameter beforehand, and lets them share the pruned one afterwards.
"""

from __future__ import annotations

from .patch import Edit, Fix


def _probe() -> bool:
    from . import toys

    graph = toys.graph_of(model := toys.llama(heads=2, kv_heads=2, tied=True))
    toys.group_of(graph, model.model.layers[0].mlp.down_proj, [0]).prune()
    return model.lm_head.weight is not model.model.embed_tokens.weight


FIX = Fix(
    id="broken-ties",
    symptom="tied lm_head and embedding are two tensors after pruning the hidden size",
    upstream=(),
    affected=("torch-pruning>=1.2.5",),
    probe=_probe,
    edits=(
        Edit(
            module="dependency.group",
            function="Group.prune",
            fingerprints=("f8a6ded93344",),
            old="""
            for dep, idxs in self._group:
                if dep.target.type == ops.OPTYPE.PARAMETER: # for nn.Parameter, we will craft a new nn.Parameter and have to update all depdencies
            """,
            new="""
            owners = {} # parameters that are shared between layers of this group
            for dep, _ in self._group:
                if dep.target.type != ops.OPTYPE.PARAMETER:
                    for name, parameter in dep.target.module.named_parameters(recurse=False):
                        owners.setdefault(parameter, []).append((dep.target.module, name))
            for dep, idxs in self._group:
                if dep.target.type == ops.OPTYPE.PARAMETER: # for nn.Parameter, we will craft a new nn.Parameter and have to update all depdencies
            """,
        ),
        Edit(
            module="dependency.group",
            function="Group.prune",
            fingerprints=("f8a6ded93344",),
            old="""
                else: # in most cases, we can directly prune the module
                    dep(idxs)
            """,
            new="""
                else: # in most cases, we can directly prune the module
                    dep(idxs)
            for parameter, places in owners.items(): # tie again what was tied
                for module, name in places[1:]:
                    if getattr(module, name).shape == getattr(*places[0]).shape:
                        setattr(module, name, getattr(*places[0]))
            """,
        ),
    ),
)
