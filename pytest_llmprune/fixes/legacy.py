"""Fixes in the layout of torch-pruning up to 1.5.3.

1.6.0 cut the one file `dependency.py` into a package, word by word: methods of DependencyGraph became functions of
`index_mapping` and `shape_infer` that take the graph, and the classes of index maps moved there from `_helpers`. Fixes
are written for the package; `fitted` puts their places and names back where the file has them. Whether the code there is
the code that a fix was written for is still for its fingerprints to say.
"""

from __future__ import annotations

import re
from dataclasses import replace

from .patch import Addition, Edit, Fix, module_file

_METHODS = {
    **{
        f"update_{operation}_index_mapping": f"_update_{operation}_index_mapping"
        for operation in ("concat", "expand", "flatten", "reshape", "slice", "split", "unbind")
    },
    "update_index_mapping": "update_index_mapping",
    "init_shape_information": "_init_shape_information",
    "infer_in_channels_recursively": "_infer_in_channels_recursively",
    "infer_out_channels_recursively": "_infer_out_channels_recursively",
    "infer_channels_between": "infer_channels_between",
}
_CALL = re.compile(rf"(?<!\w)(?<!def )({'|'.join(_METHODS)})\((\w+)(?:, |(?=\)))")
_MODULE = re.compile(r"(?<![\w.])(?:index_mapping|shape_infer|constants)\.")
_MAP_CLASS = re.compile(r"(?<![\w.])(?=_[A-Z]\w*IndexMapping\b)")
_GRAPH = re.compile(r"(?<=\()graph\b|\bgraph(?=\.\w)")


def fitted(fix: Fix) -> Fix:
    """`fix` as the installed torch_pruning is laid out; the same object from 1.6.0 on, or where none is installed."""
    if module_file("dependency") is None or module_file("dependency.graph") is not None:
        return fix
    return replace(fix, edits=tuple(map(_edit, fix.edits)), additions=tuple(map(_addition, fix.additions)))


def _edit(edit: Edit) -> Edit:
    module, function = _place(edit.module, edit.function)
    old, new = _text(edit.old, module), _text(edit.new, module)
    if edit.function in _METHODS:
        old, new = _GRAPH.sub("self", old), _GRAPH.sub("self", new)
    return replace(edit, module=module, function=function, old=old, new=new)


def _addition(addition: Addition) -> Addition:
    module, _ = _place(addition.module, addition.name)
    return Addition(module, _text(addition.source, module))


def _place(module: str, function: str) -> tuple[str, str]:
    if not module.startswith("dependency."):
        return module, function
    if _MAP_CLASS.match(function):
        return "_helpers", function
    return "dependency", f"DependencyGraph.{_METHODS[function]}" if function in _METHODS else function


def _text(text: str, module: str) -> str:
    """Source from a part of the package as `module` spells it. A function that is called becomes a method of its first
    argument; source of other modules stays as it is.
    """
    if module == "_helpers":
        return text.replace("_helpers.", "")
    if module != "dependency":
        return text
    text = _CALL.sub(lambda call: f"{call[2]}.{_METHODS[call[1]]}(", _MODULE.sub("", text))
    return _MAP_CLASS.sub("_helpers.", text).replace("MAX_VALID_DIM", "MAX_LEGAL_DIM")
