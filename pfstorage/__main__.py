"""Start the command line: ``python -m pfstorage`` and the command ``pfstorage``."""

import signal
import sys

if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
    # until the command line has its own handlers, Ctrl-C ends the program silently: no work has begun
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from pfstorage.cli.main import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
