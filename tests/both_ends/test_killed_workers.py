"""SIGKILL to a worker under load, and to the supervisor above it."""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from tests.support.arrivals import Arrivals, streams, wait_for_arrivals
from tests.support.exchange_pair import HOST, PORT, ExchangePair, converse
from tests.support.observation import count, descriptors, kill, wait_until
from tests.support.pair import Line, Side, echo, free_port
from tests.support.traffic import start

STREAMS = 200
LOAD_SECONDS = 4.0
OTHER_CID = 17
ORPHAN_SECONDS = 2.0
REPLACED_SECONDS = 1.0
MORE_THAN_A_START = 4.0
"""Where the machine is slow: how often as long as a bare start of the same program, measured while
the same load goes on."""


@contextlib.contextmanager
def bare_start(module: str) -> Iterator[Future[float]]:
    """How long it takes at this time to start a Python and import a worker's module."""

    def measure() -> float:
        began_at = time.monotonic()
        subprocess.run([sys.executable, "-P", "-c", f"import {module}"], check=True)
        return time.monotonic() - began_at

    future = start(measure)
    yield future
    future.result(60)


def is_quick(replaced: Line, bare: Future[float]) -> bool:
    """Whether a replacement was ready in time."""
    after: float = replaced["after"]
    print(f"a replacement was ready after {after:g} s, a bare start took {bare.result(60):.2f} s")
    return after < max(REPLACED_SECONDS, MORE_THAN_A_START * bare.result(60))


def survivors(socks: list[socket.socket]) -> list[socket.socket]:
    """Those that still carry words; the others must have been reset."""
    alive = []
    for sock in socks:
        try:
            converse(sock)
        except (ConnectionResetError, BrokenPipeError):
            continue
        alive.append(sock)
    return alive


@contextlib.contextmanager
def another_enclave(rig: ExchangePair) -> Iterator[tuple[Side, int]]:
    """A second enclave at the parent's second listener, and the port of its forward."""
    content = json.loads(rig.pair.enclave_config.read_text())
    port = free_port()
    forward = {"listen": f"tcp://127.0.0.1:{port}", "to": f"{HOST}:{PORT}"}
    shim = {"streams": str(rig.pair.path / "other.sock"), "http_proxy": None}
    content |= {"parent": f"unix://{rig.other_path}", "forwards": [forward], "shim": shim}
    file = rig.pair.path / "other.yaml"
    file.write_text(json.dumps(content))
    side = Side("enclave", file)
    try:
        side.wait_for_event("ready")
        wait_until(side, lambda: count(side, "link_up") == rig.links)
        yield side, port
    finally:
        side.kill()


@pytest.mark.alone
def test_a_worker_of_the_parent_killed_under_load_refuses_nobody() -> None:
    limits = {"limits": {"link_wait": 30}}
    with ExchangePair("unix", parent={"workers": 2}, enclave=limits, other_cid=OTHER_CID) as rig:
        rig.origin.handler = echo
        victim = max(rig.parent.workers, key=descriptors)  # it has the links, so far
        with another_enclave(rig) as (_, other_port):
            port = rig.ports["shared"]
            with streams(port, STREAMS // 2) as lost, streams(other_port, STREAMS // 2) as kept:
                here, there = Arrivals(port), Arrivals(other_port)
                wait_for_arrivals(here, there)
                kill(victim)
                with bare_start("parent_side.worker") as bare:
                    replaced = rig.parent.wait_for_event("worker_replaced", deaths=1)
                time.sleep(LOAD_SECONDS / 2)  # the load goes on for a while
                assert survivors(kept) == kept
                assert survivors(lost) == []
                seen, seen_there = here.end(), there.end()
        assert seen_there.keys() == {"served"}
        assert seen.keys() <= {"served", "reset"}, "reset: those that the dead worker had"
        assert seen["reset"] < 100
        assert is_quick(replaced, bare)


@pytest.mark.alone
def test_a_worker_of_the_enclave_killed_under_load_refuses_nobody() -> None:
    with ExchangePair("unix", enclave={"workers": 2}) as rig:
        rig.origin.handler = echo
        victim, other = rig.enclave.workers
        port = rig.ports["shared"]
        with contextlib.ExitStack() as stack:
            held: dict[int, list[socket.socket]] = {}
            for accepts, sleeps in ((victim, other), (other, victim)):
                os.kill(sleeps, signal.SIGSTOP)
                held[accepts] = stack.enter_context(streams(port, STREAMS // 2))
                os.kill(sleeps, signal.SIGCONT)
            arrivals = Arrivals(port)
            wait_for_arrivals(arrivals)
            kill(victim)
            with bare_start("enclave_side.worker") as bare:
                replaced = rig.enclave.wait_for_event("worker_replaced", deaths=1)
            time.sleep(LOAD_SECONDS / 2)  # the load goes on for a while
            assert survivors(held[other]) == held[other]
            assert survivors(held[victim]) == []
            seen = arrivals.end()
        assert seen.keys() <= {"served", "reset"}, "reset: those that the dead worker had"
        assert seen["reset"] < 100
        assert is_quick(replaced, bare)


@pytest.mark.parametrize("side", ["parent", "enclave"])
def test_no_worker_outlives_a_killed_supervisor(side: str) -> None:
    workers = {"workers": 2}
    with ExchangePair("unix", parent=workers, enclave=workers) as rig:
        rig.origin.handler = echo
        with streams(rig.ports["shared"], 20):
            killed: Side = getattr(rig, side)
            watched = [os.pidfd_open(pid) for pid in killed.workers]
            assert len(watched) == 2
            try:
                kill(killed.process.pid)
                deadline = time.monotonic() + ORPHAN_SECONDS
                for descriptor in watched:
                    left = max(0.0, deadline - time.monotonic())
                    assert select.select([descriptor], [], [], left)[0], "an orphan"
            finally:
                for descriptor in watched:
                    os.close(descriptor)


def test_a_stopped_worker_is_killed_and_replaced() -> None:
    with ExchangePair("unix") as rig:
        (victim,) = rig.parent.workers
        os.kill(victim, signal.SIGSTOP)
        hung = rig.parent.wait_for_event("worker_hung", pid=victim)
        assert hung["silent_seconds"] > 9
        rig.parent.wait_for_event("worker_replaced")
        rig.wait_for_links()
        rig.complete("shared", 4, (1000, 1000))
        assert count(rig.parent, "worker_died") == 1
