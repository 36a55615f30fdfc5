"""How a command ends: each error of the machine is one line on stderr, and an exit status.

A signal becomes an exception, so that temporary files and locks are removed before the end. Errors
with a message for users and programming errors are handled by `cli.main`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

_SIGNALS = ("SIGTERM", "SIGHUP")  # SIGINT is a KeyboardInterrupt already
_RESUMING = ("pretrain", "probe", "attack", "sanity")
_AGAIN = "free some space, then give the same command again"
_OWNER = "see its owner and mode: ls -ld"
# What to do about errors of the machine; any other OSError is a programming error.
_FIXES = {
    errno.ENOSPC: _AGAIN,
    errno.EDQUOT: _AGAIN,
    errno.EFBIG: "raise the limit: ulimit -f unlimited",
    errno.EACCES: _OWNER,
    errno.EPERM: _OWNER,
    errno.EROFS: "work in a copy of the project that can be written to",
    errno.EIO: "the disk may be damaged; see: dmesg",
    errno.ESTALE: "the network file system lost it; give the same command again",
    errno.EMFILE: "raise the limit: ulimit -n 4096",
    errno.ENFILE: "close other programs",
    errno.ENOMEM: "close other programs",
}


class _Stopped(BaseException):
    """A signal asks the process to end."""


def ended(command: Callable[[], int], name: str) -> int:
    """Run a command, and end as programs do on a full disk, a closed pipe, or a signal.

    Args:
        command: returns the exit status.
        name: of the verb, for messages.

    Returns:
        The exit status of the command; 2 after an error of the machine; 128 and the signal's number
        after a signal, 141 (SIGPIPE) without a message if nobody reads the output any more.
    """
    _open_streams()
    try:
        with _raised_signals():
            try:
                return command()
            finally:
                sys.stdout.flush()
    except (KeyboardInterrupt, _Stopped) as error:
        number = signal.SIGINT if isinstance(error, KeyboardInterrupt) else error.args[0]
        again = "; the same command resumes from the last saved state" * (name in _RESUMING)
        _report(f"robustviews {name}: ended by {signal.Signals(number).name}{again}")
        return 128 + number
    except OSError as error:
        _drop_output()
        if not is_of_machine(error):
            raise
        if error.errno == errno.EPIPE:
            return 128 + signal.SIGPIPE
        where = os.fsdecode(error.filename) if error.filename else f"robustviews {name}"
        fix = _FIXES[error.errno or 0]
        fix = f"{fix} {where}" if fix == _OWNER else fix
        _report(f"{where}: {error.strerror}; {fix}")
        return 2


def is_of_machine(error: Exception) -> bool:
    """Return whether an error is one of the machine, which `ended` reports in one line."""
    return isinstance(error, OSError) and error.errno in (*_FIXES, errno.EPIPE)


def _open_streams() -> None:
    """Replace closed standard streams: a file must not become the standard output."""
    for number, stream in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, stream) is None:
            handle = os.open(os.devnull, os.O_RDWR)
            mode = "r" if number == 0 else "w"
            setattr(sys, stream, open(handle, mode, encoding="utf-8"))  # noqa: SIM115, PTH123


@contextlib.contextmanager
def _raised_signals() -> Iterator[None]:
    """Raise _Stopped in the block at a signal that would otherwise end the process at once.

    An ignored signal stays ignored, as after `nohup`. The processes of a distributed training end
    at once, since an exception would wait for an operation that another process has left.
    """
    restored = {}
    if threading.current_thread() is threading.main_thread() and (
        "TORCHELASTIC_RUN_ID" not in os.environ
    ):
        for number in (getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)):
            if signal.getsignal(number) is signal.SIG_DFL:
                restored[number] = signal.signal(number, _raise)
    try:
        yield
    finally:
        for number, handler in restored.items():
            signal.signal(number, handler)


def _raise(number: int, _frame: object) -> None:
    signal.signal(number, signal.SIG_DFL)  # a second signal ends the process at once
    raise _Stopped(number)


def _drop_output() -> None:
    """Drop what broken standard streams hold back; Python would report each again at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with contextlib.suppress(OSError), open(os.devnull, "wb") as nowhere:  # noqa: PTH123
                os.dup2(nowhere.fileno(), stream.fileno())


def _report(line: str) -> None:
    with contextlib.suppress(OSError):  # as after the terminal was closed
        sys.stderr.write(f"{line}\n")
