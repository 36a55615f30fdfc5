"""The program `robustviews`, also `python -m robustviews`: runs a verb, or lets a server run it."""

from __future__ import annotations

import os
import sys

from robustviews.workflow import server


def _run(arguments: list[str]) -> int:
    from robustviews.cli import main

    return main(arguments)


def main() -> int:
    """Run the verb that the command line names.

    Returns:
        Exit status.
    """
    arguments = sys.argv[1:]
    if arguments and server.VARIABLE in os.environ:
        if arguments == ["serve"]:
            return server.serve(_run)
        status = server.ask(arguments)
        if status is not None:
            return status
    return _run(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
