"""Run the command line, as `whatsapp-webhook` or with `python -m service`."""

import os
from typing import NoReturn

from service import foreign_environment


def main() -> NoReturn:
    """Remove environment variables that only other programs' libraries should read, then run the command line."""
    ignored = foreign_environment.remove_ignored(os.environ)
    from service import cli  # noqa: PLC0415  some libraries read the environment on import

    cli.main(ignored)


if __name__ == "__main__":
    main()
