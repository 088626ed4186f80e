"""Let signals cancel a transfer, or end the program."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

from pfstorage.runtime.cancellation import CancellationToken

# The exit status of a program that a signal ended, as shells report it.
STATUS_BY_SIGNAL = {name: 128 + signal.Signals[name] for name in ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM")}


class EndedBySignal(KeyboardInterrupt):
    """A signal ends the program. Like an interrupt, it removes unfinished files on the way."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.status = STATUS_BY_SIGNAL[name]


class SignalHandlers:
    """A context manager that cancels *cancellation* at a signal.

    If nothing listens to the cancellation, and at the second signal, raise `EndedBySignal`. Before `begin`, a signal
    ends the process at once. A signal that the parent process has disabled, such as SIGHUP by ``nohup``, stays
    disabled.
    """

    def __init__(self, cancellation: CancellationToken) -> None:
        self._cancellation = cancellation
        self._has_begun = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> SignalHandlers:
        if (
            threading.current_thread() is threading.main_thread()
        ):  # Python allows handlers in this thread only
            for name in STATUS_BY_SIGNAL:
                number = signal.Signals[name]
                # a shell without job control disables SIGINT for a command with "&"
                if name in ("SIGINT", "SIGTERM") or signal.getsignal(number) != signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def begin(self) -> None:
        """Note that there may be unfinished work from now on."""
        self._has_begun = True

    def ignore_hangup(self) -> None:
        """Ignore SIGHUP until a server handles it: it makes the server reload its settings."""
        if signal.SIGHUP in self._before:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _handle(self, number: int, _: object) -> None:
        name = signal.Signals(number).name
        if not self._has_begun:  # an exception during an import may be lost
            os._exit(STATUS_BY_SIGNAL[name])
        if not self._cancellation.has_listeners or self._cancellation.is_cancelled:
            raise EndedBySignal(name)
        self._cancellation.cancel(name)
