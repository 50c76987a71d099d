"""Runs a command with no signal blocked, where it is started with some: below init.

python -m tests.support.unblocked COMMAND ARG...
"""

import os
import signal
import sys

if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.execvp(sys.argv[1], sys.argv[1:])
