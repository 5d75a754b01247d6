"""`make transcript`: run `doctor` against a real service behind a real proxy, for the README.

The output shows wa.example.com instead of localhost.
"""

import datetime as dt
import re
import shlex
import sys
import tempfile
from pathlib import Path

from tests.support.public import World

README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- made by `make transcript` -->\n", "<!-- to here -->\n"
SHOWN = "https://wa.example.com/webhooks"
PORT = re.compile(r"localhost(:\d+)?")


def made() -> str:
    """Run the commands, and return the text for the README."""
    with tempfile.TemporaryDirectory() as directory, World(Path(directory)) as world:
        until = dt.datetime.now(dt.UTC) + dt.timedelta(days=60, hours=1)
        certificate = world.authority.issue_cert("localhost", not_after=until)
        with world.behind(certificate=certificate, rules=""):  # by default nginx accepts 1 MB
            return f"```console\n{_run(world, 'doctor', '--url', world.url)}```\n"


def _run(world: World, *arguments: str) -> str:
    done = world.run(*arguments, here=True, WEBHOOK_APP_ID="", WEBHOOK_ACCOUNTS="")
    assert not done.stderr, done.stderr
    transcript = f"$ {shlex.join(['whatsapp-webhook', *arguments])}\n{done.stdout}"
    transcript = PORT.sub("wa.example.com", transcript.replace(f"Port {world.port}", "Port 443"))
    return re.sub(r"\(nginx/[0-9.]+\)", "(nginx)", transcript)


def shown() -> str:
    """Return the transcript in the README."""
    return README.read_text().partition(BEGIN)[2].partition(END)[0]


if __name__ == "__main__":
    page = README.read_text()
    if BEGIN not in page:
        sys.exit(f"README has no line {BEGIN.strip()}")
    README.write_text(page.replace(BEGIN + shown() + END, BEGIN + made() + END))
