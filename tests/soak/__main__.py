"""A long run under load that must lose nothing and leak nothing: `python -m tests.soak`.

In the first part workers are killed and the parent is restarted under load; in the second part
nothing is done to the pair, and its memory is watched. Every exchange is compared by its hash at
both ends; one that did not come whole must have met a fault, and have ended with a reset. Exit
status 1 for any that did not, and for anything that is left behind: descriptors, streams, memory.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence

from tests.soak.faults import Faults
from tests.soak.growth import MEBIBYTE, Growth
from tests.soak.load import Load, fill_all_places
from tests.soak.windows import FaultWindows
from tests.support.exchange_pair import CARRIERS, ExchangePair
from tests.support.observation import descriptors, forget_lines, holdings, plain_lines

REPORT_SECONDS = 10.0
STEP_SECONDS = 0.2
FAULTY_PART = 0.6
PLACES = 64
"""Streams that may be open at once; one that leaked is missed in the end."""

SETTLING_SECONDS = 10.0

MOST_GROWTH_BYTES = 8 * MEBIBYTE
SHOWN = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seconds", type=float, default=600, help="for how long")
    parser.add_argument("--seed", type=int, default=1, help="chooses traffic and victims")
    parser.add_argument("--programs", type=int, default=16, help="exchanges at once")
    parser.add_argument("--kill-every", type=float, default=5, help="seconds")
    parser.add_argument("--restart-every", type=float, default=17, help="seconds")
    parser.add_argument("--link", choices=("unix", "vsock"), default="unix")
    options = parser.parse_args(arguments)
    limits = {"limits": {"streams": PLACES, "dedicated": PLACES}}
    with ExchangePair(options.link, parent=limits, enclave=limits) as rig:
        return Soak(rig, options).run()


class Soak:
    """One run."""

    def __init__(self, rig: ExchangePair, options: argparse.Namespace) -> None:
        print(f"seed {options.seed}, {options.seconds:g} s, {options.programs} programs")
        self._rig = rig
        self._options = options
        self._windows = FaultWindows()
        self._load = Load(rig, self._windows, seed=options.seed, programs=options.programs)
        self._faults = Faults(rig, self._load, self._windows, seed=options.seed)
        self._growth = Growth(rig)
        self._began = time.monotonic()
        self._reported = self._began
        self._troubles: list[str] = []

    def run(self) -> int:
        """Both parts, and what is left in the end; the exit status."""
        assert self._load.is_served()
        self._rig.wait_until_closed()
        idle = self._descriptors()
        self._load.start()
        try:
            self._run_with_faults(self._began + FAULTY_PART * self._options.seconds)
            self._run_in_peace(self._began + self._options.seconds)
        finally:
            self._load.stop()
        self._troubles += self._load.tally.wrong
        self._troubles += self._load.left_over()
        for carrier in CARRIERS:
            served = fill_all_places(self._rig, carrier, PLACES)
            if served != PLACES:
                self._troubles.append(f"{PLACES - served} of {PLACES} {carrier} streams leaked")
            self._rig.origin.wait_for_all()
        left = self._settled_descriptors(idle)
        if left != idle:
            self._troubles.append(f"descriptors: {idle} idle workers had at first, now {left}")
        self._troubles += [f"a former parent: {line}" for line in self._faults.plain_lines]
        for side in (self._rig.parent, self._rig.enclave):
            self._troubles += [f"{side.name}: {line}" for line in plain_lines(side)]
        return self._conclude()

    def _run_with_faults(self, until: float) -> None:
        due: dict[Callable[[], None], float] = {
            self._faults.kill_worker: self._options.kill_every,
            self._faults.restart_parent: self._options.restart_every,
        }
        next_at = {inject: time.monotonic() + every for inject, every in due.items()}
        while time.monotonic() < until:
            for inject, every in due.items():
                if time.monotonic() >= next_at[inject]:
                    inject()
                    next_at[inject] = time.monotonic() + every
            self._step()

    def _run_in_peace(self, until: float) -> None:
        warm_at = time.monotonic() + (until - time.monotonic()) / 3
        while time.monotonic() < until:
            self._step()
            if time.monotonic() >= warm_at:
                self._growth.sample()
        for pid in self._growth.pids:
            grown = self._growth.grown_bytes(pid)
            print(f"worker {pid}: memory {grown / MEBIBYTE:+.1f} MiB in the last part")
            if grown > MOST_GROWTH_BYTES:
                self._troubles.append(f"worker {pid} grew by {grown / MEBIBYTE:.1f} MiB")

    def _step(self) -> None:
        time.sleep(STEP_SECONDS)
        if time.monotonic() >= self._reported + REPORT_SECONDS:
            self._reported = time.monotonic()
            self._report()
            for side in (self._rig.parent, self._rig.enclave):
                forget_lines(side)

    def _report(self) -> None:
        tally = self._load.tally
        held = " ".join(
            f"{holding.resident_bytes // MEBIBYTE} MiB/{holding.descriptors} fds"
            for holding in holdings(self._rig.pair).values()
        )
        print(
            f"{time.monotonic() - self._began:5.0f} s: {sum(tally.ends.values())} streams, "
            f"{tally.payload_bytes / 1e9:.2f} GB, {self._windows.injected.total()} faults, "
            f"{len(tally.wrong)} wrong; workers: {held}",
            flush=True,
        )

    def _descriptors(self) -> dict[str, list[int]]:
        """Descriptors of each side's workers."""
        return {
            side.name: [descriptors(pid) for pid in side.workers]
            for side in (self._rig.parent, self._rig.enclave)
        }

    def _settled_descriptors(self, expected: dict[str, list[int]]) -> dict[str, list[int]]:
        """What is left once nothing is open; links may have to be dialled yet."""
        deadline = time.monotonic() + SETTLING_SECONDS
        while (left := self._descriptors()) != expected and time.monotonic() < deadline:
            time.sleep(STEP_SECONDS)
        return left

    def _conclude(self) -> int:
        tally = self._load.tally
        print(f"\n{sum(tally.ends.values())} streams, {tally.payload_bytes / 1e9:.2f} GB:")
        for name, number in sorted(tally.ends.items()):
            print(f"  {name}: {number}")
        print(f"{self._windows.injected.total()} faults:")
        for name, number in sorted(self._windows.injected.items()):
            longest = self._windows.longest_seconds[name]
            print(f"  {name}: {number}, all served again after {longest:g} s at most")
        print(
            f"{len(self._troubles)} troubles" if self._troubles else "nothing lost, nothing leaked"
        )
        for trouble in self._troubles[:SHOWN]:
            print(f"  {trouble}")
        return 1 if self._troubles else 0


if __name__ == "__main__":
    sys.exit(main())
