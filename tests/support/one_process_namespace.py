"""Runs a command as PID 1 of a machine of its own: process, network and mount namespaces.

    python -m tests.support.one_process_namespace COMMAND ARG...

Exits with 77 and the reason where namespaces are not permitted.
"""

import os
import signal
import sys

from enclave_side import init
from enclave_side.namespaces import (
    MountFlag,
    Namespace,
    NamespaceError,
    map_to_root,
    mount,
    unshare,
)

NOT_PERMITTED = 77


def main(command: list[str]) -> int:
    init.block_signals()
    user, group = os.geteuid(), os.getegid()
    try:
        unshare(Namespace.USER | Namespace.PID | Namespace.MOUNT | Namespace.NETWORK)
        map_to_root(user, group)
    except NamespaceError as error:
        print(error, file=sys.stderr)
        return NOT_PERMITTED
    pid = os.fork()
    if pid == 0:
        mount("none", "/", flags=MountFlag.RECURSIVE | MountFlag.PRIVATE)
        mount("proc", "/proc", "proc")
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execvp(command[0], command)
    _, status = init.wait_for_child(pid, {pid})
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
