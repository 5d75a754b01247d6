"""Run the command line, as `whatsapp-webhook` or with `python -m service`."""

import os
from typing import NoReturn

from service import foreign_environment


def main() -> NoReturn:
    """Take out what is meant for the libraries of other programs, then run the command line."""
    ignored = foreign_environment.take_out(os.environ)
    from service import cli  # noqa: PLC0415  libraries read the environment while they are imported

    cli.main(ignored)


if __name__ == "__main__":
    main()
