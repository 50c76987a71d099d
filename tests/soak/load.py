"""Programs that exchange bytes with the origin all the time, and the judgement of each exchange."""

import contextlib
import itertools
import math
import random
import socket
import struct
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from tests.soak.windows import FaultWindows
from tests.support.exchange_pair import CARRIERS, HOST, PORT, Carrier, ExchangePair
from tests.support.exchanges import HEAD, End

Way = Literal["shared", "dedicated", "http_proxy"]
WAYS: tuple[Way, ...] = (*CARRIERS, "http_proxy")

MOST_BYTES = 16 * 1024 * 1024
RESETS_IN_A_HUNDRED = 10
ONE_WAY_IN_A_HUNDRED = 20
ORIGIN_SECONDS = 10.0
"""How long the origin may take to see an end that the program has seen."""

_LINGER_ZERO = struct.pack("ii", 1, 0)
_HARMLESS = {End.COMPLETE, End.RESET}


@dataclass(slots=True)
class Tally:
    """What came of all exchanges so far."""

    ends: Counter[str] = field(default_factory=Counter)
    """By way and end, for the program."""
    payload_bytes: int = 0
    wrong: list[str] = field(default_factory=list)


class Load:
    """So many programs at once.

    Args:
        rig: the pair and its origin.
        windows: when a reset is no fault.
        seed: chooses sizes, ways and resets.
        programs: how many at once.
    """

    def __init__(
        self, rig: ExchangePair, windows: FaultWindows, *, seed: int, programs: int
    ) -> None:
        self.tally = Tally()
        self._rig = rig
        self._windows = windows
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(random.Random(f"{seed}-{number}"),))
            for number in range(programs)
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End, when the exchanges that are under way have."""
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def is_served(self) -> bool:
        """One small exchange by each way in; whether all are complete."""
        return all(
            self._exchange(way, next(self._numbers), 1000, 1000) is End.COMPLETE for way in WAYS
        )

    def _run(self, chooser: random.Random) -> None:
        while not self._is_over.is_set():
            way = chooser.choice(WAYS)
            sizes = [_size(chooser), _size(chooser)]
            if chooser.randrange(100) < ONE_WAY_IN_A_HUNDRED:
                sizes[chooser.randrange(2)] = 0
            number = next(self._numbers)
            began = time.monotonic()
            is_reset = chooser.randrange(100) < RESETS_IN_A_HUNDRED
            if is_reset:
                end, trouble = self._reset(way, number), self._trouble_of_reset
            else:
                end, trouble = self._exchange(way, number, *sizes), self._trouble
            text = trouble(number, end, began)
            with self._lock:
                name = "refused" if end is None else end.name.lower()
                self.tally.ends[f"{way} {name}{' by the program' * is_reset}"] += 1
                if end is End.COMPLETE:
                    self.tally.payload_bytes += sum(sizes)
                if text is not None:
                    self.tally.wrong.append(f"exchange {number}, {way}, {sizes}: {text}")
            if end is not End.COMPLETE:
                time.sleep(0.02)  # while nobody serves, there is no use in a rush

    def _connect(self, way: Way) -> socket.socket | None:
        """A connection that leads to the origin; None where it is refused."""
        try:
            if way != "http_proxy":
                return self._rig.connect(way)
            ask = f"CONNECT {HOST}:{PORT} HTTP/1.1\r\nHost: {HOST}:{PORT}\r\n\r\n"
            sock, head = self._rig.pair.ask(ask)
        except OSError:
            return None
        if head.startswith(b"HTTP/1.1 200 "):
            return sock
        sock.close()
        return None

    def _exchange(self, way: Way, number: int, sent_bytes: int, received_bytes: int) -> End | None:
        sock = self._connect(way)
        if sock is None:
            return None
        return self._rig.program.exchange(sock, number, sent_bytes, received_bytes).end

    def _reset(self, way: Way, number: int) -> End | None:
        """Begin an exchange, and reset the connection in the middle of it."""
        sock = self._connect(way)
        if sock is None:
            return None
        with sock, contextlib.suppress(OSError):
            sock.sendall(HEAD.pack(number, MOST_BYTES, MOST_BYTES))
            sock.recv(1)  # so the origin knows of it
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
        return End.RESET

    def _trouble(self, number: int, end: End | None, began: float) -> str | None:
        """What is wrong with an exchange, if anything."""
        if end not in _HARMLESS | {None}:
            return f"the program saw {end}"
        if self._is_disturbed(began):
            return None  # the origin's side of it is looked at in the end
        if end is not End.COMPLETE:
            return f"{end or 'refused'} without a fault"
        # The program may be gone before its last bytes have arrived.
        outcome = self._rig.origin.take(number, ORIGIN_SECONDS)
        if outcome is not None and outcome.end is End.COMPLETE:
            return None
        if self._is_disturbed(began) and (outcome is None or outcome.end in _HARMLESS):
            return None
        return f"the origin saw {outcome}"

    def _trouble_of_reset(self, number: int, end: End | None, began: float) -> str | None:
        """What is wrong with an exchange that the program has reset, if anything."""
        if self._is_disturbed(began):
            return None
        if end is None:
            return "refused without a fault"
        outcome = self._rig.origin.take(number, ORIGIN_SECONDS)
        if outcome is not None and outcome.end is End.RESET:
            return None
        if outcome is None and self._is_disturbed(began):
            return None
        return f"the program reset it, the origin saw {outcome}"

    def _is_disturbed(self, began: float) -> bool:
        """Whether there was a fault since then."""
        return self._windows.touch(began, time.monotonic())

    def left_over(self) -> list[str]:
        """What is wrong with exchanges as the origin saw them during faults."""
        outcomes = self._rig.origin.wait_for_all()
        return [
            f"exchange {number}: the origin saw {outcome}"
            for number, outcome in outcomes.items()
            if outcome.end not in _HARMLESS
        ]


def _size(chooser: random.Random) -> int:
    """1 byte to 16 MiB, as many small as large."""
    return round(math.exp(chooser.uniform(0, math.log(MOST_BYTES))))


def fill_all_places(rig: ExchangePair, carrier: Carrier, places: int) -> int:
    """Hold as many streams open at once as there may be; how many there could be."""
    with contextlib.ExitStack() as stack:
        served = 0
        for number in range(places):
            sock = stack.enter_context(rig.connect(carrier))
            sock.settimeout(ORIGIN_SECONDS)
            with contextlib.suppress(OSError):
                sock.sendall(HEAD.pack(number, MOST_BYTES, MOST_BYTES))
                served += len(sock.recv(1))
        return served
