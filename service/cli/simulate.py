"""`simulate`: send to a running service what Meta sends."""

import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import click
from rich.console import Console
from rich.table import Table
from urllib3.exceptions import HTTPError

from service.credentials import Credentials, CredentialsDirectory
from service.loopback import is_loopback
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
    *,
    only_test: bool,
    unrecognized: bool,
    metrics: str | None,
    yes: bool,
) -> None:
    """Send to the webhook at URL what Meta sends, and check its answers.

    Does the handshake, then sends a signed notification of every kind with new ids, duplicates, a notification with
    1000 messages, and requests that must be rejected. Prints a table of requests with the answer and the expected
    answer. With --rate it sends a constant load instead, and prints the latency from the time at which each request was
    due.

    The events are stored and delivered like real ones. If URL is on another machine, the command asks first.

    \b
    whatsapp-webhook simulate http://127.0.0.1:8080/webhooks
    whatsapp-webhook simulate http://127.0.0.1:8080/webhooks --rate 200
    """  # noqa: D301  click requires the character
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
        steps = simulator.test() if only_test else simulator.tour(unrecognized=unrecognized)
        good = _run_steps(console, simulator, steps, metrics)
    raise SystemExit(0 if good else 1)


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
