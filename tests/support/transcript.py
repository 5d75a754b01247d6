"""`make transcript`: run commands against a real service behind a real proxy, for the pages that show their output.

The output shows wa.example.com instead of localhost.
"""

import datetime as dt
import re
import shlex
import tempfile
from pathlib import Path
from typing import Final

from tests.support.public import ACCOUNT, World

ROOT: Final = Path(__file__).parents[2]
META_PAGES: Final = ("docs/meta.md", "docs/es/meta.md")
# The pages on which each transcript stands.
PAGES: Final = {
    "doctor": ("README.md",),
    "subscribe": META_PAGES,
    "status": META_PAGES,
    "doctor-account": META_PAGES,
}
PORT: Final = re.compile(r"localhost(:\d+)?")
NO_APP: Final = {"WEBHOOK_APP_ID": "", "WEBHOOK_ACCOUNTS": ""}


def made() -> dict[str, str]:
    """Run the commands, and return the block of each transcript."""
    with tempfile.TemporaryDirectory() as directory, World(Path(directory)) as world:
        until = dt.datetime.now(dt.UTC) + dt.timedelta(days=60, hours=1)
        certificate = world.authority.issue_cert("localhost", not_after=until)
        with world.behind(certificate=certificate, rules=""):  # by default nginx accepts 1 MB
            command = ("doctor", "--url", world.url)
            doctor = f"$ {shlex.join(['whatsapp-webhook', *command])}\n" + _output(world, *command, **NO_APP)
        with world.behind(certificate=certificate):
            subscribe = _output(world, "subscribe", world.url, "--fields", "messages,account_update", answer="y")
            status = _output(world, "status")
            world.state["accounts"][ACCOUNT]["apps"].clear()
            account = _output(world, "doctor", "--url", world.url, here=False)
    end = account[account.index("ok       handshake") : account.index("More about this check")]
    return {
        "doctor": f"```console\n{_public(world, doctor)}```",
        "subscribe": f"```text\n{_public(world, subscribe)}```",
        "status": f"```text\n{_public(world, status)}```",
        "doctor-account": f"```text\n{_public(world, end)}```",
    }


def _output(world: World, *arguments: str, answer: str = "", here: bool = True, **environ: str) -> str:
    done = world.run(*arguments, text=answer + "\n", here=here, **environ)
    assert not done.stderr, done.stderr
    return done.stdout.replace("[y/N]: ", f"[y/N]: {answer}\n") if answer else done.stdout


def _public(world: World, text: str) -> str:
    return re.sub(
        r"\(nginx/[0-9.]+\)", "(nginx)", PORT.sub("wa.example.com", text.replace(f"Port {world.port}", "Port 443"))
    )


def shown(path: str, name: str) -> str:
    """Return the transcript on a page; empty if the page does not have it."""
    found = re.search(_pattern(name), (ROOT / path).read_text())
    return found[2] if found else ""


def _pattern(name: str) -> str:
    return rf"(?s)(<!-- {name}: made by `make transcript` -->\n)(.*?)(\n<!-- end of {name} -->)"


if __name__ == "__main__":
    for name, block in made().items():
        for path in PAGES[name]:
            page = (ROOT / path).read_text()
            (ROOT / path).write_text(
                re.sub(_pattern(name), lambda found, block=block: found[1] + block + found[3], page)
            )
