"""What is done to the pair while it carries load."""

import random
import time

from tests.soak.load import Load
from tests.soak.windows import FaultWindows
from tests.support.exchange_pair import ExchangePair
from tests.support.observation import kill, kill_all, plain_lines

RECOVERY_SECONDS = 30.0
SETTLING_SECONDS = 0.5
"""After an exchange was served: others may have begun on a link whose end they had yet to see."""


class Faults:
    """Kills and restarts, one at a time; each is over when exchanges are served again.

    Args:
        rig: the pair.
        load: what it carries, which says whether it is served.
        windows: where the faults are written down.
        seed: chooses among workers.
    """

    def __init__(self, rig: ExchangePair, load: Load, windows: FaultWindows, *, seed: int) -> None:
        self._rig = rig
        self._load = load
        self._windows = windows
        self._chooser = random.Random(seed)
        self.plain_lines: list[str] = []
        """What parents that were replaced wrote besides log lines."""

    def kill_worker(self) -> None:
        """SIGKILL to a worker of either side."""
        name = self._chooser.choice(("parent", "enclave"))
        side = self._rig.parent if name == "parent" else self._rig.enclave
        with self._windows.open(f"{name} worker killed"):
            workers = side.workers
            if workers:
                kill(self._chooser.choice(workers))
            self._wait_until_served()

    def restart_parent(self) -> None:
        """SIGKILL or SIGTERM to the whole parent, and another one."""
        name = self._chooser.choice(("killed", "stopped"))
        with self._windows.open(f"parent {name} and started"):
            if name == "killed":
                kill_all(self._rig.parent)
            else:
                self._rig.parent.stop()
                self._rig.parent.kill()
            self.plain_lines += plain_lines(self._rig.parent)
            self._rig.pair.start_parent()
            self._wait_until_served()

    def _wait_until_served(self) -> None:
        deadline = time.monotonic() + RECOVERY_SECONDS
        while not self._load.is_served():
            if time.monotonic() > deadline:
                raise AssertionError(f"nothing is served {RECOVERY_SECONDS:g} s after a fault")
        time.sleep(SETTLING_SECONDS)
