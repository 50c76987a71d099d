"""Leaves orphans until PID 1 has reaped them; then ignores SIGTERM, and asks for it.

    python -m tests.as_init.orphans NUMBER

Says `reaped NUMBER` on stdout.
"""

import os
import signal
import sys
import time
from pathlib import Path

DEADLINE_SECONDS = 60.0
INIT = 1


def main(number: int) -> None:
    statuses = set()
    orphans = set()
    for index in range(number):
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            grandchild = os.fork()
            if grandchild == 0:
                os._exit(9)
            os.write(write_end, str(grandchild).encode())
            os._exit(index % 200)
        os.close(write_end)
        orphans.add(int(os.read(read_end, 20)))
        os.close(read_end)
        _, status = os.waitpid(child, 0)
        statuses.add(os.waitstatus_to_exitcode(status))
    assert statuses == set(range(min(number, 200))), "our own children's statuses are true"
    deadline = time.monotonic() + DEADLINE_SECONDS
    while (left := sum(map(is_there, orphans))) and time.monotonic() < deadline:
        time.sleep(0.01)
    print("reaped", len(orphans) - left, flush=True)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.kill(INIT, signal.SIGTERM)
    time.sleep(DEADLINE_SECONDS)


def is_there(pid: int) -> bool:
    """Whether it is PID 1's child still, a zombie too; the number may be another's by now."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return int(text.rpartition(")")[2].split()[1]) == INIT


if __name__ == "__main__":
    main(int(sys.argv[1]))
