"""``python -m pfstorage``, and where the command ``pfstorage`` begins."""

import signal
import sys

if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
    # until the command line has its own, Ctrl-C ends the program without a word: nothing has begun
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from pfstorage.cli.main import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
