"""Mutation tests of the critical modules: change one thing at a time, and check whether a test fails.

usage: mutants.py [MODULE ...]. Every mutant of a module that authenticates Meta, delivers events, or changes the
registration at Meta is run against the tests of that module, in a copy. Exits with status 1 if a mutant survives that
EQUIVALENT does not explain, or if EQUIVALENT explains one that does not survive.

The mutations are mutmut's, and a few more. mutmut's runner is not used: it changes only the bodies of functions, and
not the code outside of them (regular expressions, limits) nor properties.
"""

import ast
import difflib
import os
import re
import shutil
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, NoReturn, cast

import click
import hypothesis.strategies  # noqa: F401  loaded once, and not in each of the processes
import libcst as cst
import pytest
from libcst import matchers as m
from mutmut.mutation.mutators import mutation_operators

ROOT = Path(__file__).parent.parent
MODULES = {
    "signature": "test_signature.py",
    "handshake": "test_handshake.py",
    "credentials": "test_credentials.py",
    "receiver/request_body": "receiver/test_request_body.py",
    "receiver/webhook": "receiver/test_webhook.py",
    "meta/graph/urls": "meta/test_urls.py",
    "meta/graph/plan": "meta/test_plan.py",
    "relay/policy": "relay/test_policy.py",
    "relay/breaker": "relay/test_breaker.py",
    "relay/rate_limit": "relay/test_rate_limit.py",
    "relay/message": "relay/test_message.py",
    "relay/destinations": "relay/test_destinations.py",
    "relay/forbidden_addresses": "relay/test_forbidden_addresses.py",
    "storage/sqlite/delivery_queue": "contract/test_deliveries.py",
}
# Modules in which a change of letter case is the same program: SQL, and addresses in hexadecimal digits.
ANY_CASE = ("storage/sqlite/delivery_queue", "relay/forbidden_addresses")
TIMEOUT_SECONDS = 60  # a mutant that makes a test hang is killed
# Use the same examples each time, and stop at the first that fails.
CONFTEST = """
from hypothesis import Phase, settings
settings.register_profile("mutants", derandomize=True, database=None, deadline=None, phases=[Phase.generate])
settings.load_profile("mutants")
"""

# Mutants, by name, that no test can detect, each with the reason.
_ANY_CASE = "OpenSSL's names of digests and Python's names of codecs are case-insensitive"
_NEITHER = "0 and None are both false, and neither is ever returned"
_SLOTS = "slots save memory, and a frozen object accepts no other attribute anyway"
_FALSY = "the caller checks only whether it is empty or true"
_ENDS = "a function without a return statement returns None"
_WHOLE = "a blank line is empty after stripping either end"
_NUMBER = "the handler uses its text, and not its number"
_REMEMBERED = "the size of the cache changes only the speed"
_BOUNDED = "the maximum wait is reached earlier"
_LEAST = "our own wait is never below 0, and the longer one is used"
_RAISES = "the library may raise it, but not for any input of a test"
_UNASKED = "it is read only while the breaker is open"
_SET_FIRST = "it is set at the first answer that counts"
_FAILED_FIRST = "a breaker opens only after a failure, and stores its time"
_EMBEDDED = "an IPv4 address of 0.0.0.0/8 is in it; the chart's list, which is the same, needs the line"
_DEADLINE = "the worker and the webhook use the same constant, whatever its value"
_DIRECTORY = "credentials.CredentialsDirectory"
EQUIVALENT = {
    "signature.Check.match: position = None": _NEITHER,
    "signature._keyed: @lru_cache(maxsize=None)": _REMEMBERED,
    "signature._keyed: @lru_cache(maxsize=9)": _REMEMBERED,
    "signature._keyed: @lru_cache(maxsize=7)": _REMEMBERED,
    'signature._keyed: return hmac.new(secret, digestmod="SHA256")': _ANY_CASE,
    'signature.header_for: return "sha256=" + hmac.digest(secret, body, "SHA256").hex()': _ANY_CASE,
    'handshake: _CHALLENGE = re.compile(r"[A-Za-z/-9._~+/=-]{1,256}")': "the slash is of the class anyway",
    'handshake.verify: return Verified(challenge, _position(token.encode("LATIN-1"), tokens))': _ANY_CASE,
    'handshake._parameters: pairs = parse_qsl(query, keep_blank_values=True, encoding="LATIN-1")': _ANY_CASE,
    "handshake._parameters: parameters.append(values[-1])": "there is exactly one by then",
    "handshake._position: position = None": _NEITHER,
    "credentials.Credentials: @dataclass(frozen=True, slots=None)": _SLOTS,
    "credentials.Credentials: @dataclass(frozen=True, slots=False)": _SLOTS,
    "credentials.Credentials: @dataclass(frozen=True, )": _SLOTS,
    f"{_DIRECTORY}._values: return None": _FALSY,
    f"{_DIRECTORY}._values: return None (2)": _FALSY,
    "credentials._content: content = stream.read(MOST_BYTES + 2)": "a second byte too many says what the first does",
    'credentials._content: raise OSError(None, "not a regular file")': _NUMBER,
    'credentials._content: raise OSError(None, f"above {MOST_BYTES} bytes")': _NUMBER,
    "credentials.values_in: return tuple(line.strip() for line in lines if line.lstrip())": _WHOLE,
    "credentials.values_in: return tuple(line.strip() for line in lines if line.rstrip())": _WHOLE,
    'relay/message.compose: "v1," + base64.b64encode(hmac.digest(key_of(secret), signed, "SHA256")).decode("ascii") for secret in secrets': _ANY_CASE,  # noqa: E501  as it is told
    'relay/message.compose: "v1," + base64.b64encode(hmac.digest(key_of(secret), signed, "sha256")).decode("ASCII") for secret in secrets': _ANY_CASE,  # noqa: E501  as it is told
    "meta/graph/urls.why_not_called: without return None": _ENDS,
    "meta/graph/urls.same: return None (2)": _FALSY,
    "meta/graph/urls.same: without return False (2)": _FALSY,
    "meta/graph/urls.same: return None (4)": _FALSY,
    'meta/graph/urls._normalized: return parts.scheme, user, _ascii(parts.hostname or "XXXX"), port, '
    'parts.path or "/", parts.query, parts.fragment': "no host is in capitals",
    'meta/graph/urls._ascii: return tuple(each.encode() if each.isascii() else b"xn--" + each.encode("PUNYCODE") '
    "for each in labels)": _ANY_CASE,
    "meta/graph/plan._is_elsewhere: return override and not same(override, url)": _FALSY,
    "relay/policy._delay_ms: backoff = int(chance() * min(max_backoff, policy.first_backoff_ms * 2 ** min(attempts, 31)))": _BOUNDED,  # noqa: E501  as it is told
    "relay/policy._delay_ms: backoff = int(chance() * min(max_backoff, policy.first_backoff_ms * 2 ** min(attempts, 29)))": _BOUNDED,  # noqa: E501  as it is told
    "relay/policy._retry_after_ms: return -1": _LEAST,
    "relay/policy._retry_after_ms: return int(text[:10]) * 1000": _BOUNDED,
    "relay/policy._retry_after_ms: return int(text[:8]) * 1000": _BOUNDED,
    "relay/policy._retry_after_ms: return max(int(parsedate_to_datetime(text).timestamp() * 1000) - now, -1)": _LEAST,
    "relay/policy._retry_after_ms: except (ValueError, OverflowError):": _RAISES,
    "relay/policy._retry_after_ms: except (ValueError, TypeError, ):": _RAISES,
    "relay/policy._retry_after_ms: return -1 (2)": _LEAST,
    "relay/breaker.Breaker.__init__: self._has_succeeded = None": _FALSY,
    "relay/breaker.Breaker._record_failure: self._failed[queue] = self._failed.pop(queue, None) or not "
    "(failed_before and self._has_succeeded)": _FALSY,
    "relay/breaker.Breaker._record_failure: self._failed.popitem(last=None)": _FALSY,
    "relay/breaker.Breaker._record_success: was_short = 0 <= now - self._failing_since < SHORT_OUTAGE_MS": (
        _FAILED_FIRST
    ),
    "receiver/request_body.read_body: if time.monotonic() >= deadline:": "no clock is read at the very deadline",
    "relay/forbidden_addresses: Address: TypeAlias = None": "a name for types",
    'relay/forbidden_addresses: without "::/128",': _EMBEDDED,
    'relay/forbidden_addresses: without "::1/128",': _EMBEDDED,
    "relay/policy: _REDIRECTION: Final = range(299, 400)": "299 is a success, which is looked up first",
    "relay/policy.kind_of: if 1 < status < 500 and status != _TOO_MANY_REQUESTS:  # noqa: PLR2004  not a server "
    "error": ("there is no status 1"),
    "relay/policy._reason_to_give_up: without return None": _ENDS,
    "relay/policy._is_too_old: return claim.queue_failing_since and now - failing_since >= policy.max_age_ms": _FALSY,
    "relay/breaker.Breaker.__init__: without self._misconfigured_since = 0": _SET_FIRST,
    "relay/breaker.Breaker.__init__: self._misconfigured_since = None": _SET_FIRST,
    "relay/breaker.Breaker.__init__: self._misconfigured_since = 1": _SET_FIRST,
    "relay/breaker.Breaker.__init__: self._misconfigured_since = -1": _SET_FIRST,
    "relay/breaker.Breaker._pause: pause = min(max((now - since) / PAUSE_DIVISOR, MIN_PAUSE_MS), most)": (
        "the time of the probe is rounded to milliseconds anyway"
    ),
    "relay/breaker.Breaker.__init__: self.next_probe_at = 1": _UNASKED,
    "relay/breaker.Breaker.__init__: self.next_probe_at = -1": _UNASKED,
}

EQUIVALENT.update(
    {
        f"relay/policy.AnswerKind: {kind} = None{comment}": "the values are never used, only the members"
        for kind, comment in {
            "DELIVERED": "",
            "MISCONFIGURED": "  # the destination is; never counted against a message",
            "PERMANENT": "  # for this message",
            "DISABLED": "",
            "RETRY": "  # the destination is up, and may accept it later",
            "FAILED": "  # the destination may be down",
        }.items()
    }
)
EQUIVALENT.update(
    {
        f"relay/rate_limit.RateLimit.capacity: {change}  # the clock may be set back": "a millisecond makes no attempt"
        for change in (
            "elapsed = 1 if self._refilled_at is None else max(now - self._refilled_at, 0)",
            "elapsed = 0 if self._refilled_at is None else max(now - self._refilled_at, 1)",
        )
    }
)
EQUIVALENT.update(
    {
        f"receiver/request_body: {change}": _DEADLINE
        for change in (
            'without READ_DEADLINE: Final = "whatsapp_webhook.read_deadline"',
            "READ_DEADLINE: Final = None",
            'READ_DEADLINE: Final = "XXwhatsapp_webhook.read_deadlineXX"',
            'READ_DEADLINE: Final = "WHATSAPP_WEBHOOK.READ_DEADLINE"',
            'READ_DEADLINE: Final = ""',
        )
    }
)

# Not mutated: docstrings, annotations, imports.
NOT_MUTATED = m.OneOf(
    m.Annotation(),
    m.SimpleStatementLine(body=[m.OneOf(m.Import(), m.ImportFrom(), m.Expr(value=m.SimpleString()))]),
)
SIMILAR = {"fullmatch": ("match", "search"), "strip": ("lstrip", "rstrip")}
Found = re.Match[str]


def neighbours(character: str) -> tuple[str, str]:
    return chr(ord(character) - 1), chr(ord(character) + 1)


# Mutations of a regular expression: quantifiers, their numbers, classes, and the members of classes.
PATTERNS: list[tuple[str, Callable[[Found], Iterable[str]]]] = [
    (r"{.+?}", lambda _: ("", "+", "*")),
    (r"(?<=[{,])\d+(?=[,}])", lambda found: (str(int(found[0]) - 1), str(int(found[0]) + 1))),
    (r"\[.+?]", lambda found: (".", "[^" + found[0][1:])),
    (r"\w-\w", lambda found: ("", *(first + found[0][1:] for first in neighbours(found[0][0])))),
    (r"\w-\w", lambda found: (found[0][:-1] + last for last in neighbours(found[0][-1]))),
    (r"[^a-zA-Z0-9[\]{}](?=[^[{]*])", lambda _: ("",)),
]


def strings(node: cst.SimpleString) -> Iterator[cst.CSTNode]:
    """Empty the string; if it is a regular expression, change what it matches by one step."""
    text = node.value
    yield node.with_changes(value=node.prefix + text[-1] * 2)
    for pattern, instead in PATTERNS if text.startswith("r") else ():
        for found in re.finditer(pattern, text):
            for other in instead(found):
                yield node.with_changes(value=text[: found.start()] + other + text[found.end() :])


def calls(node: cst.Call) -> Iterator[cst.CSTNode]:
    """Replace a method call without arguments by its object, or a function call by its argument."""
    if isinstance(node.func, cst.Attribute) and not node.args:
        yield node.func.value
    if isinstance(node.func, cst.Name) and len(node.args) == 1:
        yield node.args[0].value


def tuples(node: cst.Tuple) -> Iterator[cst.CSTNode]:
    """Remove each element; add one to an empty tuple."""
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
    """A module with one change, and a name for the change that stays the same while its line does."""

    module: str
    name: str
    source: str
    diff: str


def nodes(node: cst.CSTNode, scope: str) -> Iterator[tuple[str, cst.CSTNode]]:
    for child in node.children:
        if m.matches(child, NOT_MUTATED):
            continue
        inner = f"{scope}.{child.name.value}" if isinstance(child, cst.FunctionDef | cst.ClassDef) else scope
        yield inner, child
        yield from nodes(child, inner)


def variants(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """Yield the mutations of a node, except invalid ones."""
    for kind, operator in OPERATORS:
        if isinstance(node, kind):
            with suppress(cst.CSTValidationError):
                yield from operator(node)


def source_of(module: str) -> str:
    return (ROOT / "service" / f"{module}.py").read_text()


def mutants_of(module: str) -> Iterator[Mutant]:
    """Yield each program that differs from the module in one thing, once."""
    source = source_of(module)
    tree = cst.parse_module(source)
    known, names = {ast.dump(ast.parse(source))}, Counter[str]()
    for scope, node in nodes(tree, module):
        for new in variants(node):
            changed = cast("cst.Module", tree.deep_replace(node, new)).code
            try:
                program = ast.dump(ast.parse(changed))
            except SyntaxError:
                continue
            if program in known or (module in ANY_CASE and changed.lower() == source.lower()):
                continue
            known.add(program)
            diff = list(difflib.unified_diff(source.splitlines(), changed.splitlines(), lineterm="", n=0))[3:]
            removed, added = (" ".join(line[1:].strip() for line in diff if line[0] == sign) for sign in "-+")
            name = f"{scope}: " + (f"without {removed}" if re.match(r"pass\b|$", added) else added)
            names[name] += 1
            yield Mutant(module, f"{name} ({names[name]})" if names[name] > 1 else name, changed, "\n".join(diff))


def copy_to(directory: Path) -> Path:
    """Copy the service and the tests to *directory*."""
    shutil.copytree(ROOT / "service", directory / "service", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "tests" / "support", directory / "tests" / "support")
    for tests in MODULES.values():
        (directory / "tests" / tests).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / "tests" / tests, directory / "tests" / tests)
    (directory / "conftest.py").write_text(CONFTEST)
    (directory / "pytest.ini").write_text(
        "[pytest]\npythonpath = .\nconsider_namespace_packages = true\naddopts = --import-mode importlib\n"
    )
    return directory


def attempt(mutant: Mutant, directory: Path) -> NoReturn:
    """Run the tests of a module with *mutant* in its place; exit this process with pytest's status."""
    code = int(pytest.ExitCode.INTERNAL_ERROR)
    try:
        signal.alarm(TIMEOUT_SECONDS)
        output = os.open(directory / "output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(directory)
        sys.path.insert(0, str(directory))
        sys.dont_write_bytecode = True  # a mutant may have the same time and size as the file before
        Path("service", f"{mutant.module}.py").write_text(mutant.source)
        # Tests of the whole corpus need more files than are copied.
        options = ["-x", "-q", "-p", "no:cacheprovider", "--basetemp", "tmp", "-k", "not corpus"]
        code = pytest.main([*options, f"tests/{MODULES[mutant.module]}"])
    finally:
        os._exit(code)


def survivors(mutants: Sequence[Mutant]) -> list[Mutant]:
    """Run all *mutants*, one per core at a time, each in a separate process; return those that survive."""
    os.environ.update(PYTEST_DISABLE_PLUGIN_AUTOLOAD="1", PYTEST_ADDOPTS="")
    alive, running, waiting = [], dict[int, tuple[Mutant, Path]](), deque(mutants)
    with TemporaryDirectory() as temporary, click.progressbar(mutants, hidden=not sys.stdout.isatty()) as progress:
        idle = [copy_to(Path(temporary) / str(number)) for number in range(os.cpu_count() or 1)]
        while waiting or running:
            while waiting and idle:
                mutant, directory = waiting.popleft(), idle.pop()
                child = os.fork() or attempt(mutant, directory)
                running[child] = mutant, directory
            child, status = os.wait()
            mutant, directory = running.pop(child)
            if os.WIFEXITED(status) and os.WEXITSTATUS(status) not in (
                0,
                1,
                2,
            ):  # passed, failed, or could not be imported
                raise RuntimeError(f"{mutant.name}: {status}: {(directory / 'output').read_text()}")
            if status == 0:
                alive.append(mutant)
            (directory / "service" / f"{mutant.module}.py").write_text(source_of(mutant.module))
            idle.append(directory)
            progress.update(1)
    return sorted(alive, key=mutants.index)


def main(modules: Sequence[str]) -> int:
    """Run all mutants of *modules* and print the result; return the exit status."""
    started = time.monotonic()
    mutants = [mutant for module in modules for mutant in mutants_of(module)]
    for module in modules:
        unchanged = Mutant(module, "unchanged", source_of(module), "")
        broken = Mutant(module, "broken", "raise AssertionError\n", "")
        if survivors([unchanged, broken]) != [unchanged]:
            click.echo(f"The tests of {module} fail without a change, or do not use the copy.")
            return 1
    alive = survivors(mutants)
    for mutant in alive:
        click.echo(
            f"{mutant.name}\n{mutant.diff}\n= {EQUIVALENT.get(mutant.name, 'SURVIVES WITHOUT AN EXPLANATION')}\n"
        )
    names = {mutant.name for mutant in alive}
    stale = [name for name in EQUIVALENT if re.split("[.:]", name)[0] in modules and name not in names]
    for name in stale:
        click.echo(f"{name}\n= IS EXPLAINED, BUT DOES NOT SURVIVE\n")
    for module in modules:
        made, left = (sum(mutant.module == module for mutant in group) for group in (mutants, alive))
        click.echo(f"{module}: {made} mutants, {made - left} killed, {left} alive")
    same = len(names & EQUIVALENT.keys())
    click.echo(
        f"{len(mutants)} mutants, {len(mutants) - len(alive)} killed, {same} the same program, "
        f"{len(alive) - same} unexplained; {time.monotonic() - started:.0f} s"
    )
    return 1 if stale or same < len(alive) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(MODULES)))
