"""`simulate`: send to a running service what Meta sends."""

import difflib
import math
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO
from urllib.parse import SplitResult, urlsplit

import click
from rich.console import Console
from rich.table import Table
from urllib3.exceptions import HTTPError

from service.credentials import Credentials, CredentialsDirectory
from service.loopback import is_loopback
from service.meta import catalogue
from service.meta import load_generator as load_of
from service.meta.simulator import NOBODY, SimulatedStep, Simulator


class NumberRange(click.FloatRange):
    """A number in a range, and not `nan`."""

    def convert(self, value: float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number."""
        number: float = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


class KindOfNotification(click.ParamType[str]):
    """The name of a sample of the catalogue, such as message.text."""

    name = "kind"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the catalogue's name of the sample; `list` prints all names."""
        known = {dotted(each): each for each in catalogue.kinds()}
        if value == "list":
            click.echo("\n".join(known))
            raise SystemExit
        if value not in known and value not in catalogue.kinds():
            near = difflib.get_close_matches(value, known, n=3)
            self.fail(
                f"{value!r} is no kind. " + (f"Similar: {', '.join(near)}." if near else "--kind list prints all."),
                param,
                ctx,
            )
        return known.get(value, value)


def dotted(kind: str) -> str:
    """Return the name of a sample as one word: `message.text.reply` for "message text, reply"."""
    return re.sub("[^a-z]+", ".", kind)


BATCH = 20
MAX_BATCH = 1000
RATE = NumberRange(0, 100_000, min_open=True)
DURATION = NumberRange(0, 86_400, min_open=True)


@click.command(short_help="Send test notifications to a running service.")
@click.argument("url")
@click.option(
    "--credentials",
    "directory",
    metavar="DIRECTORY",
    type=click.Path(path_type=Path),
    envvar="WEBHOOK_CREDENTIALS_DIR",
    default="/etc/whatsapp-webhook/credentials",
    show_default=True,
    help="Directory with the files verify-token and app-secret. Line 1 of each is used.",
)
@click.option(
    "--rate",
    metavar="NUMBER",
    type=RATE,
    help="Load test: send NUMBER notifications per second.",
)
@click.option(
    "--duration",
    metavar="SECONDS",
    type=DURATION,
    default=10,
    show_default=True,
    help="With --rate: how long to send.",
)
@click.option(
    "--only-test",
    is_flag=True,
    help="Send and store one event only, marked as a test like those of Meta's Test button, and send requests that "
    "must be rejected.",
)
@click.option(
    "--kind",
    type=KindOfNotification(),
    help="Send only notifications of this kind, such as message.text or status.read. --kind list prints all kinds.",
)
@click.option("--from", "person", metavar="NUMBER", help="With --kind: the sender, a phone number without +.")
@click.option("--text", help="With --kind message.text: the text.")
@click.option(
    "--count",
    metavar="NUMBER",
    type=click.IntRange(1, 100_000),
    default=1,
    show_default=True,
    help="With --kind: how many notifications to send, each with new ids.",
)
@click.option(
    "--file",
    "body",
    metavar="FILE",
    type=click.File("rb"),
    help="Sign the bytes of FILE and send them, as they are.",
)
@click.option("--all", "large", is_flag=True, help=f"Send a batch of {MAX_BATCH} messages, not {BATCH}.")
@click.option("--unrecognized", is_flag=True, help="Also send a signed body that is not a notification.")
@click.option(
    "--metrics",
    metavar="URL",
    help="URL of the admin listener's /metrics: check that it counts the accepted notifications.",
)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation, even if URL is on another machine.")
def simulate(
    url: str,
    directory: Path,
    rate: float | None,
    duration: float,
    kind: str | None,
    person: str | None,
    text: str | None,
    count: int,
    body: BinaryIO | None,
    *,
    only_test: bool,
    large: bool,
    unrecognized: bool,
    metrics: str | None,
    yes: bool,
) -> None:
    """Send to the webhook at URL what Meta sends, and check its answers.

    Does the handshake, then sends a signed notification of every kind with new ids, duplicates, a notification with
    20 messages, and requests that must be rejected. Prints a table of requests with the answer and the expected
    answer. With --kind or --file it sends only that after the handshake. With --rate it sends a constant load instead,
    and prints the latency from the time at which each request was due.

    The events are stored and delivered like real ones. If URL is on another machine, the command asks first.

    \b
    whatsapp-webhook simulate http://127.0.0.1:8080/webhooks
    whatsapp-webhook simulate URL --kind message.text --from 16505550123
    whatsapp-webhook simulate URL --file body.json
    whatsapp-webhook simulate URL --rate 200
    """  # noqa: D301  click requires the character
    _require_consistent(kind, person, text, body=body is not None, alone=bool(rate) or only_test or large)
    target = _target(url)
    if target is None:
        raise click.BadParameter("must be a URL such as http://127.0.0.1:8080/webhooks", param_hint="URL")
    if not is_loopback(target.hostname or "") and not yes:
        plain = " Without TLS, others on the network can read the verify token." if target.scheme == "http" else ""
        click.confirm(
            f"{target.hostname} is not this machine. Its events are stored and delivered like real ones.{plain} Send?",
            abort=True,
        )
    credentials = _credentials(directory)
    console = Console()
    if rate:
        good = _load(console, url, credentials, rate, duration)
    else:
        simulator = Simulator(url, credentials)
        if kind:
            steps = simulator.kind(kind, count, person=person, text=text)
        elif body:
            steps = simulator.file(body.name, body.read())
        elif only_test:
            steps = simulator.test()
        else:
            steps = simulator.tour(batch=MAX_BATCH if large else BATCH, unrecognized=unrecognized)
        good = _run_steps(console, simulator, steps, metrics)
    raise SystemExit(0 if good else 1)


def _require_consistent(kind: str | None, person: str | None, text: str | None, *, body: bool, alone: bool) -> None:
    """Raise UsageError if options exclude each other, or the kind has no sender or no text."""
    if (kind is not None) + body + alone > 1:
        raise click.UsageError("Use one of --kind, --file, --only-test, --all and --rate.")
    if kind is None:
        if person is not None or text is not None:
            raise click.UsageError("--from and --text need --kind, such as --kind message.text.")
        return
    try:
        catalogue.written(kind, person=person, text=text)
    except ValueError as ex:
        raise click.UsageError(f"--kind {dotted(kind)} {ex}.") from ex


def _target(url: str) -> SplitResult | None:
    with suppress(ValueError):
        target = urlsplit(url)
        if target.scheme in ("http", "https") and target.hostname and target.port != 0:
            return target
    return None


def _credentials(path: Path) -> Credentials:
    directory = CredentialsDirectory(path)
    directory.look()
    if directory.missing:
        raise click.ClickException(f"{directory.missing} Set the directory with --credentials.")
    return directory.current


def _run_steps(console: Console, simulator: Simulator, planned: Iterator[SimulatedStep], metrics: str | None) -> bool:
    handshake = simulator.handshake()
    if not handshake.is_good:
        hint = _HINTS.get(handshake.answered, "Check that the webhook listens at this URL.")
        console.print(f"The handshake failed. Answer: {handshake.answered}. {hint}", soft_wrap=True)
        return False
    before = _accepted(simulator, metrics)
    steps = [handshake, *planned]
    sent = sum(step.answered == "200" for step in steps)
    if metrics:
        counted = _accepted(simulator, metrics) - before
        steps.append(
            SimulatedStep("accepted according to the metrics", "all" if counted >= sent else f"{counted:g}", "all")
        )
    table = Table("sent", "answered", "expected", "", box=None, header_style="bold")
    for step in steps:
        table.add_row(step.what, step.answered, step.expected, "[green]ok[/]" if step.is_good else "[red]wrong[/]")
    console.print(table)
    wrong = sum(not step.is_good for step in steps)
    console.print(
        f"{wrong} of {len(steps)} answers were not as expected." if wrong else "Every answer was as expected."
    )
    return not wrong


_HINTS = {
    NOBODY: "Check that the service is running, and that this is its address.",
    "404": "The path is not WEBHOOK_PATH of the service, or its credentials differ from these.",
}


def _accepted(simulator: Simulator, metrics: str | None) -> float:
    try:
        return simulator.accepted(metrics) if metrics else 0.0
    except HTTPError as ex:
        raise click.ClickException(f"{metrics} cannot be read: {type(ex).__name__}.") from ex


def _load(console: Console, url: str, credentials: Credentials, rate: float, duration: float) -> bool:
    result = load_of.run(console, url, credentials.app_secrets[0], rate=rate, seconds=duration)
    table = Table("answer", "count", box=None, header_style="bold")
    for answer, number in sorted(result.answers.items()):
        table.add_row(answer, str(number))
    console.print(table)
    shares = "  ".join(f"p{share:g} {result.percentile(share):.1f} ms" for share in (50, 90, 99, 99.9))
    console.print(
        f"{result.sent / result.seconds:.0f} requests per second for {result.seconds:.1f} s. Latency: {shares}",
        soft_wrap=True,
    )
    return set(result.answers) == {"200"}
