"""Reads imports from source, and says which of them break the rules of `architecture`.

An import inside a function or under TYPE_CHECKING counts like any other: it ties two layers just
the same. An import that is computed cannot be read from the source, so it is refused.
"""

import ast
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.rules.architecture import (
    COMPUTED_IMPORTS,
    HOMES,
    IMPURE_MODULES,
    IMPURE_NAMES,
    LAYERS,
    PACKAGES,
    WITH_FILES,
    Layer,
)

_COMPUTED = ("importlib.import_module", "builtins.__import__")


@dataclass(frozen=True, slots=True)
class Import:
    """One imported name."""

    line: int
    target: str
    """Dotted, with the imported name at its end: `os.urandom` for `from os import urandom`."""
    name: str
    """What the importing module calls it."""
    is_lazy: bool
    """Inside a function."""


def modules(root: Path) -> dict[str, Path]:
    """Every module of the product below `root`, by dotted name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def layer_of(module: str) -> Layer | None:
    """The layer with the longest name that `module` is, or is inside of."""
    parts = module.split(".")
    names = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    layer = next((LAYERS[name] for name in names if name in LAYERS), None)
    if layer and layer.name == "vsockproxy" and module != "vsockproxy":
        return None  # a new part of the shared package has to be put into a layer
    return layer


def read_imports(module: str, source: str, *, is_package: bool = False) -> Iterator[Import]:
    """The imports of one module, relative ones made absolute."""
    yield from _imports_below(ast.parse(source), module, is_package, is_lazy=False)


def _imports_below(
    parent: ast.AST, module: str, is_package: bool, *, is_lazy: bool
) -> Iterator[Import]:
    for node in ast.iter_child_nodes(parent):
        if isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.asname or alias.name.partition(".")[0]
                yield Import(node.lineno, alias.name, name, is_lazy)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                above = parts[: len(parts) - node.level + is_package]
                base = ".".join([*above, *([base] if base else [])])
            for alias in node.names:
                yield Import(
                    node.lineno, f"{base}.{alias.name}", alias.asname or alias.name, is_lazy
                )
        else:
            is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _imports_below(node, module, is_package, is_lazy=is_lazy or is_function)


def breaches(module: str, source: str, *, is_package: bool = False) -> Iterator[str]:
    """One sentence for each rule that `source`, as module `module`, breaks."""
    layer = layer_of(module)
    if layer is None:
        yield f"{module}: has no layer in tests/rules/architecture.py"
        return
    imports = list(read_imports(module, source, is_package=is_package))
    for imported in imports:
        for breach in _import_breaches(module, layer, imported):
            yield f"{module}:{imported.line}: {breach}"
    for line, name in _dotted_names(source, imports):
        if name in _COMPUTED and module not in COMPUTED_IMPORTS:
            yield f"{module}:{line}: {name} hides what is imported"
        elif layer.is_pure and name in IMPURE_NAMES and module not in WITH_FILES:
            yield f"{module}:{line}: {name} brings {IMPURE_NAMES[name]} into a pure layer"


def _import_breaches(module: str, layer: Layer, imported: Import) -> Iterator[str]:
    target = imported.target
    top = target.partition(".")[0]
    if top in PACKAGES:
        yield from _layer_breaches(layer, imported)
    elif top in HOMES:
        if layer.name not in HOMES[top]:
            homes = ", ".join(sorted(HOMES[top]))
            yield f"imports {top}, which only {homes} may"
    elif top not in sys.stdlib_module_names:
        yield f"imports {top}, which has no home in tests/rules/architecture.py"
    if layer.is_pure and module not in WITH_FILES:
        for name in _prefixes(target, IMPURE_MODULES):
            yield f"imports {target}: {IMPURE_MODULES[name]} in a pure layer"


def _layer_breaches(layer: Layer, imported: Import) -> Iterator[str]:
    # `from vsockproxy import session` names a module, `... import __version__` does not.
    target = layer_of(imported.target) or layer_of(imported.target.rpartition(".")[0])
    if target is None:
        yield f"imports {imported.target}, which has no layer in tests/rules/architecture.py"
    elif target.name in layer.lazily and target.name not in layer.imports:
        if not imported.is_lazy:
            yield f"imports {target.name} when it is loaded; inside a function it may"
    elif target.name != layer.name and target.name not in layer.imports:
        yield f"imports {target.name}, which {layer.name} must not know"


def _prefixes(target: str, names: Collection[str]) -> Iterator[str]:
    parts = target.split(".")
    candidates = (".".join(parts[:length]) for length in range(1, len(parts) + 1))
    return (name for name in candidates if name in names)


def _dotted_names(source: str, imports: list[Import]) -> Iterator[tuple[int, str]]:
    """Every name that is read, as the module it comes from calls it."""
    origin = {name: f"builtins.{name}" for name in ("open", "input", "print", "__import__")}
    for imported in imports:
        is_from = imported.name != imported.target.partition(".")[0]
        origin[imported.name] = imported.target if is_from else imported.name
        yield imported.line, imported.target
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
            dotted = ast.unparse(node)
            first, _, rest = dotted.partition(".")
            if first in origin:
                yield node.lineno, f"{origin[first]}.{rest}" if rest else origin[first]
