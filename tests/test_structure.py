"""Rules for all modules: unique names, small protocols."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
MAX_METHODS = 4


def statements() -> Iterator[tuple[str, ast.stmt]]:
    """Yield every top-level statement of every module, with the module's path."""
    for file in sorted((ROOT / "service").rglob("*.py")):
        for statement in ast.parse(file.read_text()).body:
            yield str(file.relative_to(ROOT / "service")), statement


def test_class_names_are_unique() -> None:
    """No two public classes have the same name, so that a name can be searched for."""
    places = defaultdict[str, list[str]](list)
    for module, statement in statements():
        if isinstance(statement, ast.ClassDef) and not statement.name.startswith("_"):
            places[statement.name].append(module)
    assert len(places) > 150
    assert {name: modules for name, modules in places.items() if len(modules) > 1} == {}


def test_constant_names_are_unique() -> None:
    """Only constants with the same role in different engines share a name."""
    places = defaultdict[str, list[str]](list)
    for module, statement in statements():
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        for target in targets:
            if isinstance(target, ast.Name) and target.id.isupper() and len(target.id) > 1:
                places[target.id].append(module)
    assert len(places) > 200
    repeated = {name: modules for name, modules in places.items() if len(modules) > 1 and not name.startswith("_")}
    assert [
        name for name, modules in repeated.items() if not all(each.startswith("storage/") for each in modules)
    ] == []


def test_protocols_are_small() -> None:
    """A protocol has few methods; a larger interface combines several protocols."""
    protocols = [
        statement
        for _, statement in statements()
        if isinstance(statement, ast.ClassDef) and any(ast.unparse(base) == "Protocol" for base in statement.bases)
    ]
    assert len(protocols) > 10
    for protocol in protocols:
        methods = [each.name for each in protocol.body if isinstance(each, ast.FunctionDef)]
        assert len(methods) <= MAX_METHODS, (protocol.name, methods)
