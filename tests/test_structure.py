"""What holds of all modules: one name, one thing; seams that stay small."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
MOST_METHODS = 4


def statements() -> Iterator[tuple[str, ast.stmt]]:
    """Yield every statement of a module's top level, with the module's path."""
    for file in sorted((ROOT / "service").rglob("*.py")):
        for statement in ast.parse(file.read_text()).body:
            yield str(file.relative_to(ROOT / "service")), statement


def test_a_class_has_a_name_of_its_own() -> None:
    """No two public classes are called the same, so that a name can be searched for."""
    places = defaultdict[str, list[str]](list)
    for module, statement in statements():
        if isinstance(statement, ast.ClassDef) and not statement.name.startswith("_"):
            places[statement.name].append(module)
    assert len(places) > 150
    assert {name: modules for name, modules in places.items() if len(modules) > 1} == {}


def test_a_constant_has_one_meaning() -> None:
    """Only engines, which are siblings, call what plays the same role the same."""
    places = defaultdict[str, list[str]](list)
    for module, statement in statements():
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        for target in targets:
            if isinstance(target, ast.Name) and target.id.isupper() and len(target.id) > 1:
                places[target.id].append(module)
    assert len(places) > 200
    several = {name: modules for name, modules in places.items() if len(modules) > 1 and not name.startswith("_")}
    assert [name for name, modules in several.items() if not all(each.startswith("storage/") for each in modules)] == []


def test_a_protocol_is_written_for_its_caller() -> None:
    """It has few methods; what has more is put together from several."""
    seams = [
        statement
        for _, statement in statements()
        if isinstance(statement, ast.ClassDef) and any(ast.unparse(base) == "Protocol" for base in statement.bases)
    ]
    assert len(seams) > 10
    for seam in seams:
        methods = [each.name for each in seam.body if isinstance(each, ast.FunctionDef)]
        assert len(methods) <= MOST_METHODS, (seam.name, methods)
