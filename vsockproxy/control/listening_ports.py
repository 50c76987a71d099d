"""Whether something listens on a TCP port in the network of a process, without connecting to it."""

from pathlib import Path
from typing import Final

__all__ = ("has_listener", "listens_in")

_LISTENING: Final = "0A"  # TCP_LISTEN of include/net/tcp_states.h


def listens_in(pid: int, port: int) -> bool:
    """Whether there is a listener on `port` in the network namespace of process `pid`.

    False where the process has gone, or there is no /proc.
    """
    for name in ("tcp", "tcp6"):
        try:
            table = Path(f"/proc/{pid}/net/{name}").read_text(encoding="ascii")
        except OSError:
            continue
        if has_listener(table, port):
            return True
    return False


def has_listener(table: str, port: int) -> bool:
    """Whether a table as of /proc/net/tcp has a listener on `port` (proc_pid_net(5))."""
    for line in table.splitlines()[1:]:
        _, local, _, state, *_ = line.split()
        if state == _LISTENING and int(local.rpartition(":")[2], 16) == port:
            return True
    return False
