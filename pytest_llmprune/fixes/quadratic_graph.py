"""quadratic-graph: building a graph and its groups takes time that grows with the square of the number of layers.

Every call of `get_pruning_group` maps the indices of the whole graph anew, and membership in growing lists is tested one
by one. The fix maps a node's surroundings when propagation first comes there, looks up what lists were scanned for, and
keeps a group's indices as two shared lists of numbers instead of one object per channel and member.

Mapping nodes that touch each other write to the same edges, the later one prevails: they are mapped together and in the
order that upstream maps them in.
"""

from __future__ import annotations

from .indices import INDICES
from .patch import Addition, Edit, Fix

ALL_DIFFERENT = '''
def all_different(idxs):
    """Whether no index occurs twice."""
    return len(set(to_plain_idxs(idxs))) == len(idxs)
'''

PLAIN_AND_ROOT = '''
def plain_and_root_idxs(idxs, known):
    """Both lists of hybrid indices. The same for the same indices: `known` keeps them. Only lists in ascending order are
    shared, since importances sort the lists they are given."""
    if id(idxs) not in known:
        plain, root = to_plain_idxs(idxs), to_root_idxs(idxs)
        known[id(idxs)] = (idxs, plain, root, plain == sorted(plain))
    _, plain, root, ascending = known[id(idxs)]
    return (plain if ascending else list(plain)), root
'''

AROUND = '''
def update_index_mapping_around(graph, node, mapped):
    """Map the edges of `node`, unless the set `mapped` says that this was done."""
    for cluster in mapping_clusters(graph).get(node, ()):
        if id(cluster) not in mapped:
            mapped.add(id(cluster))
            update_index_mapping(graph, cluster)
'''

CLUSTERS = '''
def mapping_clusters(graph):
    """{node: the lists of mapping nodes that write to its edges}; mapping nodes that touch stand in one list, in the
    order of the graph. Made once: pruning changes sizes, not nodes."""
    if getattr(graph, "_mapping_clusters", None) is None:
        types = (ops.OPTYPE.CONCAT, ops.OPTYPE.SPLIT, ops.OPTYPE.RESHAPE, ops.OPTYPE.UNBIND, ops.OPTYPE.EXPAND, ops.OPTYPE.SLICE)
        mapping = { # fused attention is mapped by the fix sdpa-gqa, and by nothing without it
            node: i for i, node in enumerate(graph.module2node.values())
            if node.type in types or "ScaledDotProduct" in str(getattr(node.module, "_grad_fn", ""))
        }
        clusters, seen = {}, set()
        for first in mapping:
            if first in seen:
                continue
            members, touched, stack = [], {}, [first]
            seen.add(first)
            while stack:
                node = stack.pop()
                members.append(node)
                for neighbour in [node, *node.inputs, *node.outputs]:
                    touched[neighbour] = None
                    if neighbour in mapping and neighbour not in seen:
                        seen.add(neighbour)
                        stack.append(neighbour)
            members.sort(key=mapping.get)
            for node in touched:
                clusters.setdefault(node, []).append(members)
        graph._mapping_clusters = clusters
    return graph._mapping_clusters
'''

PLACES = '''
def places_of(group):
    """{(target, handler): where in the group's list they stand}, made anew after an item was replaced."""
    if group._places is None:
        group._places = {}
        for i, (dep, _) in enumerate(group._group):
            group._places.setdefault((dep.target, dep.handler), []).append(i)
    return group._places
'''

BELOW = '''
def nodes_below_3d_parameters(module2node):
    """Every node that a three-dimensional parameter leads to, the parameters' own nodes among them."""
    stack = [n for n in module2node.values() if n.type == ops.OPTYPE.PARAMETER and len(n.module.shape) == 3]
    below = set(stack)
    while stack:
        for node in stack.pop().outputs:
            if node not in below:
                below.add(node)
                stack.append(node)
    return below
'''


def _probe() -> bool:
    """Look for a group of one layer in graphs of one and of three: the same work, or more for layers that it never
    meets?"""
    from . import toys

    def lookups(layers: int) -> int:
        graph = toys.graph_of(model := toys.llama(heads=2, kv_heads=2, layers=layers))
        count, look_up = 0, graph.get_in_channels

        def counted(node: object) -> object:
            nonlocal count
            count += 1
            return look_up(node)

        graph.get_in_channels = counted
        toys.touched(graph, model.model.layers[0].mlp.gate_proj, [0])
        return count

    return lookups(3) > lookups(1)


FIX = Fix(
    id="quadratic-graph",
    symptom="time to trace, to build groups and to prune grows with the square of the number of layers",
    upstream=(474,),
    affected=("torch-pruning>=1.4.3",),
    probe=_probe,
    additions=(
        INDICES,
        Addition("_helpers", ALL_DIFFERENT),
        Addition("_helpers", PLAIN_AND_ROOT),
        Addition("dependency.index_mapping", AROUND),
        Addition("dependency.index_mapping", CLUSTERS),
        Addition("dependency.graph", BELOW),
        Addition("dependency.group", PLACES),
    ),
    edits=(
        Edit(
            module="_helpers",
            function="to_plain_idxs",
            fingerprints=("81edb22ad140",),
            old="""
            if len(idxs)==0 or not isinstance(idxs[0], _HybridIndex):
            """,
            new="""
            if isinstance(idxs, _HybridIndices):
                return idxs.idx
            if len(idxs)==0 or not isinstance(idxs[0], _HybridIndex):
            """,
        ),
        Edit(
            module="_helpers",
            function="to_root_idxs",
            fingerprints=("25cc73a915cf",),
            old="""
            if len(idxs)==0 or not isinstance(idxs[0], _HybridIndex):
            """,
            new="""
            if isinstance(idxs, _HybridIndices):
                return idxs.root_idx
            if len(idxs)==0 or not isinstance(idxs[0], _HybridIndex):
            """,
        ),
        Edit(
            module="dependency.index_mapping",
            function="update_index_mapping",
            fingerprints=("5abe6f2597d6", "6585286744f6"),
            old="""
            def update_index_mapping(graph):
            """,
            new="""
            def update_index_mapping(graph, nodes=None): # of these nodes, or of all
            """,
        ),
        Edit(
            module="dependency.index_mapping",
            function="update_index_mapping",
            fingerprints=("5abe6f2597d6", "6585286744f6"),
            old="""
            for module, node in graph.module2node.items():
            """,
            new="""
            for node in graph.module2node.values() if nodes is None else nodes:
                module = node.module
            """,
        ),
        Edit(
            module="dependency.graph",
            function="DependencyGraph.get_pruning_group",
            fingerprints=("4d97958f1579", "c44ba243b217"),
            old="""
            idxs = [ _helpers._HybridIndex(idx=i, root_idx=i) for i in idxs ] # idxs == root_idxs for the root layer

            # Update index mapping before creating the group
            index_mapping.update_index_mapping(self)
            """,
            new="""
            idxs = _helpers._HybridIndices(list(idxs), list(idxs)) # idxs == root_idxs for the root layer
            mapped = set() # what propagation has come to, and whose index mapping is up to date
            """,
        ),
        Edit(
            module="dependency.graph",
            function="DependencyGraph.get_pruning_group",
            fingerprints=("4d97958f1579", "c44ba243b217"),
            old="""
            visited_node.add(node)
            """,
            new="""
            visited_node.add(node)
            index_mapping.update_index_mapping_around(self, node, mapped)
            """,
        ),
        Edit(
            module="dependency.graph",
            function="DependencyGraph.get_pruning_group",
            fingerprints=("4d97958f1579", "c44ba243b217"),
            old="""
            for i in range(len(merged_group)):
                hybrid_idxs = merged_group[i].idxs
                idxs = _helpers.to_plain_idxs(hybrid_idxs)
                root_idxs = _helpers.to_root_idxs(hybrid_idxs)
            """,
            new="""
            known = {}
            for i in range(len(merged_group)):
                idxs, root_idxs = _helpers.plain_and_root_idxs(merged_group[i].idxs, known)
            """,
        ),
        Edit(
            module="dependency.graph",
            function="DependencyGraph.get_all_groups",
            fingerprints=("023005d14b7f",),
            old="""
            visited_layers = []
            ignored_layers = ignored_layers+self.IGNORED_LAYERS_IN_TRACING
            """,
            new="""
            visited_layers = set()
            ignored_layers = {*ignored_layers, *self.IGNORED_LAYERS_IN_TRACING}
            """,
        ),
        Edit(
            module="dependency.graph",
            function="DependencyGraph.get_all_groups",
            fingerprints=("023005d14b7f",),
            old="visited_layers.append(module)",
            new="visited_layers.add(module)",
        ),
        Edit(
            module="dependency.graph",
            function="DependencyGraph._detect_unwrapped_parameters",
            fingerprints=("fa17c8c300aa", "738c924b81e6"),
            old="""
            # Detect unwrapped nn.Parameters
            unwrapped_detected = []
            """,
            new="""
            # Detect unwrapped nn.Parameters
            wrapped_parameters = set(wrapped_parameters)
            unwrapped_detected = []
            """,
        ),
        Edit(
            module="dependency.graph",
            function="DependencyGraph._detect_unwrapped_parameters",
            fingerprints=("fa17c8c300aa", "738c924b81e6"),
            old="""
            is_wrapped = False
            for p_wrapped in wrapped_parameters:
                if p is p_wrapped:
                    is_wrapped = True
                    break
            if not is_wrapped:
            """,
            new="""
            if p not in wrapped_parameters:
            """,
        ),
        Edit(
            module="dependency.graph",
            function="DependencyGraph._trace",
            fingerprints=("f48181597e01", "47fd51d97970", "a9621816229d"),
            old="""
            for node in module2node.values():
                if node.type in (ops.OPTYPE.CONCAT, ops.OPTYPE.SPLIT):
                    stack = [node]
                    visited = set()
                    while len(stack) > 0:
                        n = stack.pop(-1)
                        visited.add(n)
                        if n.type == ops.OPTYPE.PARAMETER and len(n.module.shape) == 3:
                            node.enable_index_mapping = False
                            break
                        else:
                            for ni in n.inputs:
                                if ni not in visited:
                                    stack.append(ni)
            """,
            new="""
            for node in nodes_below_3d_parameters(module2node):
                if node.type in (ops.OPTYPE.CONCAT, ops.OPTYPE.SPLIT):
                    node.enable_index_mapping = False
            """,
        ),
        Edit(
            module="dependency.graph",
            function="DependencyGraph._trace_computational_graph",
            fingerprints=("0cc728028063", "0fb447765829", "40f560b4daf9"),
            old="""
            is_unwrapped_param = False
            for (j, (p, dim)) in enumerate(self.unwrapped_parameters):
                if f[0].variable is p:
                    is_unwrapped_param = True
                    gradfn2module[f[0]] = p
                    self._module2name[p] = "UnwrappedParameter_{} ({})".format(j, p.shape)
            if not is_unwrapped_param:
                continue
            """,
            new="""
            p = f[0].variable
            if p not in unwrapped:
                continue
            gradfn2module[f[0]] = p
            self._module2name[p] = "UnwrappedParameter_{} ({})".format(unwrapped[p], p.shape)
            """,
        ),
        Edit(
            module="dependency.graph",
            function="DependencyGraph._trace_computational_graph",
            fingerprints=("0cc728028063", "0fb447765829", "40f560b4daf9"),
            old="""
            def create_node_if_not_exists(grad_fn):
            """,
            new="""
            unwrapped = {p: j for j, (p, dim) in enumerate(self.unwrapped_parameters)}
            def create_node_if_not_exists(grad_fn):
            """,
        ),
        Edit(
            module="dependency.group",
            function="Group.__init__",
            fingerprints=("57ed864c632c",),
            old="""
            self._group = list()
            """,
            new="""
            self._group = list()
            self._places = {} # where in the list a target and handler may be found
            """,
        ),
        Edit(
            module="dependency.group",
            function="Group.add_dep",
            fingerprints=("9580aae92db2",),
            old="""
            self._group.append(_helpers.GroupItem(dep=dep, idxs=idxs))
            """,
            new="""
            places_of(self).setdefault((dep.target, dep.handler), []).append(len(self._group))
            self._group.append(_helpers.GroupItem(dep=dep, idxs=idxs))
            """,
        ),
        Edit(
            module="dependency.group",
            function="Group.__setitem__",
            fingerprints=("afd7119a58c9",),
            old="""
            self._group[k] = v
            """,
            new="""
            self._group[k] = v
            self._places = None
            """,
        ),
        Edit(
            module="dependency.group",
            function="Group.has_pruning_op",
            fingerprints=("7848ddad069c",),
            old="""
            for _dep, _idxs in self._group:
                #_idxs = _helpers.to_plain_idxs(_idxs)
                if (
                    _dep.target == dep.target
                    and _dep.handler == dep.handler
                    and _idxs == idxs
                ):
                    return True
            return False
            """,
            new="""
            return any(self._group[i][1] == idxs for i in places_of(self).get((dep.target, dep.handler), ()))
            """,
        ),
        Edit(
            module="dependency.group",
            function="Group.add_and_merge",
            fingerprints=("506640afae14",),
            old="""
            for i, (_dep, _idxs) in enumerate(self._group):
                if _dep.target == dep.target and _dep.handler == dep.handler:
                    visited_idxs = set()
                    merged_idxs = []
                    for index in _idxs + idxs:
                        if index.idx not in visited_idxs:
                            merged_idxs.append(index)
                            visited_idxs.add(index.idx)
                    self._group[i] = _helpers.GroupItem(dep=_dep, idxs=merged_idxs)
                    return
            """,
            new="""
            for i in places_of(self).get((dep.target, dep.handler), ()):
                _dep, _idxs = self._group[i]
                if _idxs is idxs and _helpers.all_different(idxs): # the same channels by another path
                    return
                visited_idxs = set()
                merged_idxs = []
                for index in _idxs + idxs:
                    if index.idx not in visited_idxs:
                        merged_idxs.append(index)
                        visited_idxs.add(index.idx)
                self._group[i] = _helpers.GroupItem(dep=_dep, idxs=merged_idxs)
                return
            """,
        ),
    ),
)
