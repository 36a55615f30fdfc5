"""The program `robustviews`, also `python -m robustviews`: runs a verb, or lets a server run it."""

from __future__ import annotations

import functools
import os
import sys

from robustviews.workflow import server


def _run(arguments: list[str]) -> int:
    from robustviews.cli import main

    return main(arguments)


@functools.cache
def _prepare(study: str) -> None:
    """Compute the digests of the code behind a study, for all forks of this process."""
    from robustviews.study import jobs, load_study

    jobs.jobs(load_study(study))


def main() -> int:
    """Run the verb that the command line names.

    Returns:
        Exit status.
    """
    arguments = sys.argv[1:]
    if arguments and server.VARIABLE in os.environ:
        if arguments == ["serve"]:
            return server.serve(_run, _prepare)
        status = server.ask(arguments)
        if status is not None:
            return status
    return _run(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
