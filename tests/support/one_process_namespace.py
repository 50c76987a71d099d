"""PID 1 of a namespace of its own, for tests of init without a sandbox.

    python -m tests.support.one_process_namespace COMMAND ARG...

Exits with 77 and the reason where namespaces are not permitted.
"""

import os
import sys

from enclave_side import init
from enclave_side.namespaces import MountFlag, Namespace, NamespaceError, mount, unshare

NOT_PERMITTED = 77


def main(command: list[str]) -> int:
    try:
        unshare(Namespace.USER | Namespace.PID | Namespace.MOUNT)
        mount("none", "/", flags=MountFlag.RECURSIVE | MountFlag.PRIVATE)
    except NamespaceError as error:
        print(error, file=sys.stderr)
        return NOT_PERMITTED
    init.block_signals()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            mount("proc", "/proc", "proc")
            code = init.run(command)
        finally:
            os._exit(code)
    _, status = init.wait_for_child(pid, {pid})
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
