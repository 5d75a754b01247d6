"""`simulate`: play Meta against a running service."""

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
    """A number of a range; `nan` is in none."""

    def convert(self, value: float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it."""
        found: float = super().convert(value, param, ctx)
        if math.isnan(found):
            self.fail(f"{value!r} is no number", param, ctx)
        return found


RATE = NumberRange(0, 100_000, min_open=True)
DURATION = NumberRange(0, 86_400, min_open=True)


@click.command(short_help="Send what Meta sends, to a running service.")
@click.argument("url")
@click.option(
    "--credentials",
    "directory",
    type=click.Path(path_type=Path),
    envvar="WEBHOOK_CREDENTIALS_DIR",
    default="/etc/whatsapp-webhook/credentials",
    show_default=True,
    help="The directory with verify-token and app-secret; line 1 of each is used.",
)
@click.option("--rate", type=RATE, help="Load instead: so many notifications a second.")
@click.option("--duration", type=DURATION, default=10, show_default=True, help="Seconds of load.")
@click.option(
    "--only-test", is_flag=True, help="Send one event only, marked `test` as those of Meta's Test button are."
)
@click.option("--unrecognized", is_flag=True, help="Also send a signed body that is no notification.")
@click.option("--metrics", metavar="URL", help="The admin listener's /metrics: what is accepted must be counted there.")
@click.option("--yes", is_flag=True, help="Do not ask, also where URL is not this machine.")
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
    """Play Meta against the webhook at URL.

    Does the handshake, then sends a signed notification of every kind, each with new ids; then repeats, a batch of
    1000, and what must be refused; and says in a table what was sent, answered and expected. With --rate it sends
    load at that rate and measures, from when each was due to its answer. With --only-test all that is kept is one
    event that is marked `test`.

    Its events go where real ones go: against anything but this machine it asks first.

    \b
    whatsapp-webhook simulate http://127.0.0.1:8080/webhooks
    whatsapp-webhook simulate http://127.0.0.1:8080/webhooks --rate 200 --duration 30
    """  # noqa: D301  click wants the character
    target = _target(url)
    if target is None:
        raise click.BadParameter("wants a URL such as http://127.0.0.1:8080/webhooks", param_hint="URL")
    if not is_loopback(target.hostname or "") and not yes:
        clear = " Without TLS the verify token can be read on the way." if target.scheme == "http" else ""
        click.confirm(
            f"{target.hostname} is not this machine. Its events would go where real ones go.{clear} Send?", abort=True
        )
    credentials = _credentials(directory)
    console = Console()
    if rate:
        good = _load(console, url, credentials, rate, duration)
    else:
        simulator = Simulator(url, credentials)
        steps = simulator.test() if only_test else simulator.tour(unrecognized=unrecognized)
        good = _play(console, simulator, steps, metrics)
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
        raise click.ClickException(f"{directory.missing} Name the directory with --credentials.")
    return directory.current


def _play(console: Console, simulator: Simulator, planned: Iterator[SimulatedStep], metrics: str | None) -> bool:
    greeting = simulator.handshake()
    if not greeting.is_good:
        why = _WHY.get(greeting.answered, "is it the webhook that answers there?")
        console.print(f"The handshake was answered: {greeting.answered}. {why}", soft_wrap=True)
        return False
    before = _accepted(simulator, metrics)
    steps = [greeting, *planned]
    sent = sum(step.answered == "200" for step in steps)
    if metrics:
        counted = _accepted(simulator, metrics) - before
        steps.append(
            SimulatedStep("accepted, as the metrics count", "all" if counted >= sent else f"{counted:g}", "all")
        )
    table = Table("sent", "answered", "expected", "", box=None, header_style="bold")
    for step in steps:
        table.add_row(step.what, step.answered, step.expected, "[green]ok[/]" if step.is_good else "[red]wrong[/]")
    console.print(table)
    bad = sum(not step.is_good for step in steps)
    console.print(
        f"{bad} of {len(steps)} answers were not as expected." if bad else "Every answer was the expected one."
    )
    return not bad


_WHY = {
    NOBODY: "Is the service running, and is this its address?",
    "404": "The path is not its WEBHOOK_PATH, or these credentials are not the service's.",
}


def _accepted(simulator: Simulator, metrics: str | None) -> float:
    try:
        return simulator.accepted(metrics) if metrics else 0.0
    except HTTPError as ex:
        raise click.ClickException(f"{metrics} can't be read: {type(ex).__name__}.") from ex


def _load(console: Console, url: str, credentials: Credentials, rate: float, duration: float) -> bool:
    result = load_of.run(console, url, credentials.app_secrets[0], rate=rate, seconds=duration)
    table = Table("answer", "count", box=None, header_style="bold")
    for answer, number in sorted(result.answers.items()):
        table.add_row(answer, str(number))
    console.print(table)
    shares = "  ".join(f"p{share:g} {result.percentile(share):.1f} ms" for share in (50, 90, 99, 99.9))
    console.print(
        f"{result.sent / result.seconds:.0f} a second for {result.seconds:.1f} s; from when each was due: {shares}",
        soft_wrap=True,
    )
    return set(result.answers) == {"200"}
