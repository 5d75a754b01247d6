"""Are the tests of what must not be wrong any good: change one thing at a time, and see whether a test minds.

usage: mutants.py [MODULE ...]; every change to `signature`, `handshake` and `credentials` is tried against the tests
of that module, in a copy. Ends with 1 where a change lives that EQUIVALENT does not explain, or where EQUIVALENT
explains one that does not live.

The changes are mutmut's, and a few more. Its runner is not used: it changes the bodies of functions only, and much of
what matters here is outside of them (regular expressions, limits) or in properties, which it leaves alone.
"""

import ast
import difflib
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, cast

import click
import libcst as cst
from libcst import matchers as m
from mutmut.mutation.mutators import mutation_operators

ROOT = Path(__file__).parent.parent
MODULES = ("signature", "handshake", "credentials")
PATIENCE = 60  # seconds; a change that makes a test hang is noticed too
# The same examples each time, and the first that fails is enough.
CONFTEST = """
from hypothesis import Phase, settings
settings.register_profile("mutants", derandomize=True, database=None, deadline=None, phases=[Phase.generate])
settings.load_profile("mutants")
"""

# What is told of a change that no test can tell apart: why it is the same program.
EQUIVALENT: dict[str, str] = {}

# What is not changed: documentation, types, imports.
ASIDE = m.OneOf(
    m.Annotation(),
    m.SimpleStatementLine(body=[m.OneOf(m.Import(), m.ImportFrom(), m.Expr(value=m.SimpleString()))]),
)
SIMILAR = {"fullmatch": ("match", "search"), "strip": ("lstrip", "rstrip")}
Found = re.Match[str]


def beside(character: str) -> tuple[str, str]:
    return chr(ord(character) - 1), chr(ord(character) + 1)


# What is changed in a regular expression: quantifiers, their numbers, classes, and the members of classes.
PATTERNS: list[tuple[str, Callable[[Found], Iterable[str]]]] = [
    (r"{.+?}", lambda found: ("", "+", "*")),
    (r"(?<=[{,])\d+(?=[,}])", lambda found: (str(int(found[0]) - 1), str(int(found[0]) + 1))),
    (r"\[.+?]", lambda found: (".", "[^" + found[0][1:])),
    (r"\w-\w", lambda found: ("", *(first + found[0][1:] for first in beside(found[0][0])))),
    (r"\w-\w", lambda found: (found[0][:-1] + last for last in beside(found[0][-1]))),
    (r"[^a-zA-Z0-9[\]{}](?=[^[{]*])", lambda _: ("",)),
]


def strings(node: cst.SimpleString) -> Iterator[cst.CSTNode]:
    """Empty it; change what a regular expression takes by one step."""
    text = node.value
    yield node.with_changes(value=text[: text.index('"')] + '""')
    for pattern, instead in PATTERNS if text.startswith("r") else ():
        for found in re.finditer(pattern, text):
            for other in instead(found):
                yield node.with_changes(value=text[: found.start()] + other + text[found.end() :])


def calls(node: cst.Call) -> Iterator[cst.CSTNode]:
    """Take what a method without arguments is of, or what a function is given."""
    if isinstance(node.func, cst.Attribute) and not node.args:
        yield node.func.value
    if isinstance(node.func, cst.Name) and len(node.args) == 1:
        yield node.args[0].value


def tuples(node: cst.Tuple) -> Iterator[cst.CSTNode]:
    """Drop each element; fill an empty one."""
    for index in range(len(node.elements)):
        yield node.with_changes(elements=[*node.elements[:index], *node.elements[index + 1 :]])
    if not node.elements:
        yield cst.parse_expression('(b"XX",)')


OPERATORS: list[tuple[Any, Callable[[Any], Iterable[cst.CSTNode]]]] = [
    *mutation_operators,
    (cst.SimpleString, strings),
    (cst.FormattedStringText, lambda node: [node.with_changes(value=f"XX{node.value}XX")]),
    (cst.Integer, lambda node: [cst.parse_expression(str(node.evaluated_value - 1))]),
    (cst.Tuple, tuples),
    (cst.BooleanOperation, lambda node: [node.left, node.right]),
    (cst.If | cst.CompIf, lambda node: [node.with_changes(test=cst.Name(it)) for it in ("True", "False")]),
    (cst.Return, lambda node: [node.with_changes(value=cst.Name("None"))]),
    (cst.SimpleStatementLine, lambda node: [node.with_changes(body=[cst.Pass()])]),
    (cst.Attribute, lambda node: [node.with_changes(attr=cst.Name(it)) for it in SIMILAR.get(node.attr.value, ())]),
    (cst.Call, calls),
]


class Mutant(NamedTuple):
    """A module with one thing changed, and a name for the change that lasts while its line does."""

    module: str
    name: str
    source: str
    diff: str


def nodes(node: cst.CSTNode, scope: str) -> Iterator[tuple[str, cst.CSTNode]]:
    for child in node.children:
        if m.matches(child, ASIDE):
            continue
        inner = f"{scope}.{child.name.value}" if isinstance(child, cst.FunctionDef | cst.ClassDef) else scope
        yield inner, child
        yield from nodes(child, inner)


def mutants_of(module: str) -> Iterator[Mutant]:
    """Make each program that differs from the module in one thing, once."""
    source = (ROOT / "service" / f"{module}.py").read_text()
    tree = cst.parse_module(source)
    known, names = {ast.dump(ast.parse(source))}, Counter[str]()
    for scope, node in nodes(tree, module):
        for new in (new for kind, operator in OPERATORS if isinstance(node, kind) for new in operator(node)):
            changed = cast("cst.Module", tree.deep_replace(node, new)).code
            try:
                program = ast.dump(ast.parse(changed))
            except SyntaxError:
                continue
            if program in known:
                continue
            known.add(program)
            diff = list(difflib.unified_diff(source.splitlines(), changed.splitlines(), lineterm="", n=0))[3:]
            gone, come = (" ".join(line[1:].strip() for line in diff if line[0] == sign) for sign in "-+")
            name = f"{scope}: " + (f"without {gone}" if re.match(r"pass\b|$", come) else come)
            names[name] += 1
            yield Mutant(module, f"{name} ({names[name]})" if names[name] > 1 else name, changed, "\n".join(diff))


class Copy:
    """A copy of the service and the tests, to change one module of it at a time."""

    def __init__(self, directory: Path) -> None:
        shutil.copytree(ROOT / "service", directory / "service", ignore=shutil.ignore_patterns("__pycache__"))
        for module in MODULES:
            shutil.copy(ROOT / "tests" / f"test_{module}.py", directory)
        (directory / "conftest.py").write_text(CONFTEST)
        (directory / "pytest.ini").write_text("[pytest]\n")
        self._directory = directory

    def passes(self, module: str, source: str) -> bool:
        """Say whether the tests of *module* pass with *source* in its place."""
        file = self._directory / "service" / f"{module}.py"
        original = file.read_text()
        file.write_text(source)
        try:
            done = subprocess.run(
                [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", f"test_{module}.py"],
                cwd=self._directory,
                env={
                    **os.environ,
                    "PYTHONPATH": str(self._directory),
                    "PYTHONDONTWRITEBYTECODE": "1",  # a change may keep the second and the size of the file
                    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
                    "PYTEST_ADDOPTS": "",
                },
                capture_output=True,
                timeout=PATIENCE,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False
        finally:
            file.write_text(original)
        if done.returncode not in (0, 1, 2):  # passed, failed, not even imported
            raise RuntimeError(f"pytest ended with {done.returncode}: {done.stdout.decode()}{done.stderr.decode()}")
        return done.returncode == 0


def survivors(mutants: list[Mutant], directory: Path) -> list[Mutant]:
    """Try all *mutants*, each core in a copy of its own."""
    workers = os.cpu_count() or 1
    copies = SimpleQueue[Copy]()
    for number in range(workers):
        copies.put(Copy(directory / str(number)))

    def lives(mutant: Mutant) -> bool:
        copy = copies.get()
        try:
            return copy.passes(mutant.module, mutant.source)
        finally:
            copies.put(copy)

    with ThreadPoolExecutor(workers) as pool:
        return [mutant for mutant, alive in zip(mutants, pool.map(lives, mutants), strict=True) if alive]


def main(modules: Sequence[str]) -> int:
    """Try everything; say what was found and whether it is as it should be."""
    started = time.monotonic()
    mutants = [mutant for module in modules for mutant in mutants_of(module)]
    with TemporaryDirectory() as directory:
        control = Copy(Path(directory) / "control")
        for module in modules:
            source = (ROOT / "service" / f"{module}.py").read_text()
            if not control.passes(module, source) or control.passes(module, "raise AssertionError\n"):
                click.echo(f"The tests of {module} fail without a change, or do not see the copy.")
                return 1
        alive = survivors(mutants, Path(directory))
    explained = [mutant for mutant in alive if mutant.name in EQUIVALENT]
    for mutant in alive:
        click.echo(f"{mutant.name}\n{mutant.diff}\n= {EQUIVALENT.get(mutant.name, 'LIVES, AND NOTHING SAYS WHY')}\n")
    gone = [name for name in EQUIVALENT if name.partition(":")[0].partition(".")[0] in modules]
    gone = [name for name in gone if name not in {mutant.name for mutant in alive}]
    for name in gone:
        click.echo(f"{name}\n= IS IN THE TABLE, AND DOES NOT LIVE\n")
    for module in modules:
        total = sum(mutant.module == module for mutant in mutants)
        living = sum(mutant.module == module for mutant in alive)
        click.echo(f"{module}: {total} mutants, {total - living} killed, {living} live")
    click.echo(
        f"{len(mutants)} mutants, {len(mutants) - len(alive)} killed, {len(explained)} the same program, "
        f"{len(alive) - len(explained)} unexplained; {time.monotonic() - started:.0f} s"
    )
    return 1 if gone or len(explained) < len(alive) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or MODULES))
