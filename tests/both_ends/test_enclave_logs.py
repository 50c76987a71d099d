"""The log of an enclave on its way to the parent: whole, in order, each line once, or counted."""

import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.observation import kill, kill_all, logged_at, unread, wait_until
from tests.support.one_process_namespace import NOT_PERMITTED
from tests.support.pair import Line, LinkKind, Pair, Side, free_port
from tests.support.program import Program, command_line
from tests.support.terminal import Shell
from vsockproxy.control.log_shipping import END_SECONDS
from vsockproxy.worker_messages import DRAIN_SECONDS

SHELL = ("sh", "-c")


def logging_pair(kind: LinkKind, *, buffer: str = "1MiB", lines: int = 0, **more: Any) -> Pair:
    """A pair whose enclave brings its log to the parent."""
    shim = {"http_proxy": None, "streams": None, "names": False}
    return Pair(
        kind,
        [],
        parent={"log": {"format": "json", "enclave_lines": lines}},
        enclave={
            "log": {"format": "json", "to_parent": True, "buffer": buffer},
            "shim": shim,
            **more.pop("enclave", {}),
        },
        **more,
    )


@contextmanager
def both(pair: Pair) -> Iterator[Side]:
    """A pair of which the parent runs; it."""
    with closing(pair):
        yield pair.start_parent()


def of_command(parent: Side) -> list[Line]:
    """The parent's lines of what the command wrote."""
    return [line for line in parent.events("enclave_log") if line["source"] != "vsockproxy"]


def texts(parent: Side, source: str = "stdout") -> list[str]:
    """What the command wrote to one of the two."""
    return [line["text"] for line in of_command(parent) if line["source"] == source]


def assert_whole(parent: Side) -> None:
    """Each number of a record is a line's, or within a gap that was told, in their order."""
    expected = 0
    for line in list(parent.lines):
        if line["event"] in ("enclave_log", "enclave_log_dropped", "enclave_exit"):
            assert line["sequence"] == expected
            if not line.get("continues"):
                expected += line.get("lines", 1)


def until(path: Path) -> str:
    """Shell: wait until a file is there."""
    return f"until test -e {path}; do sleep 0.02; done"


def end(pair: Pair, *command: str) -> tuple[int, bytes]:
    """Run a command in the enclave to its end; status and stdout."""
    enclave = Side("enclave", pair.enclave_config, command)
    pair.enclave = enclave
    assert enclave.process.stdout is not None
    output = enclave.process.stdout.read()
    return enclave.process.wait(60), output


def test_each_line_of_the_command_is_one_of_the_parent(kind: LinkKind) -> None:
    pair = logging_pair(kind)
    with both(pair) as parent:
        script = r"echo hi; echo oops >&2; printf 'caf\303\251 \377\n\nno end'; exit 3"
        status, output = end(pair, *SHELL, script)
        assert (status, output) == (3, b"hi\ncaf\xc3\xa9 \xff\n\nno end")  # still on stdout
        exited = parent.wait_for_event("enclave_exit")
        assert texts(parent) == ["hi", "café \\xff", "", "no end"]
        assert texts(parent, "stderr") == ["oops"]
        first = of_command(parent)[0]
        assert first["side"] == "parent"
        assert first["cid"] == (Pair.CID if kind == "unix" else 1)
        assert first["enclave_time"][:10] == first["time"][:10]
        own = [
            json.loads(line["text"])
            for line in parent.events("enclave_log")
            if line["source"] == "vsockproxy"
        ]
        assert {"ready", "link_up"} <= {line["event"] for line in own}
        assert {line["side"] for line in own} == {"enclave"}
        numbers = [line["sequence"] for line in parent.events("enclave_log")]
        assert numbers == list(range(len(numbers)))
        assert (exited["status"], exited.get("signal"), exited["level"]) == (3, None, "warning")
        assert 0 < exited["uptime"] < 60
        assert set(exited["last_lines"].split("\n")) == {"hi", "café \\xff", "", "no end", "oops"}


EXITS: dict[str, tuple[str, int, str | None]] = {
    "success": ("true", 0, None),
    "its own code": ("exit 3", 3, None),
    "a code that looks like a signal's": ("exit 143", 143, None),
    "a signal": ("kill -TERM $$", 143, "SIGTERM"),
    "SIGKILL": ("kill -KILL $$", 137, "SIGKILL"),
}


@pytest.mark.parametrize(("script", "status", "number"), EXITS.values(), ids=EXITS)
def test_the_parent_knows_how_the_command_ended(
    script: str, status: int, number: str | None
) -> None:
    pair = logging_pair("unix")
    with both(pair) as parent:
        assert end(pair, *SHELL, f"seq 100; {script}")[0] == status
        exited = parent.wait_for_event("enclave_exit")
        assert (exited["status"], exited.get("signal")) == (status, number)
        assert exited["last_lines"].split("\n") == [str(each) for each in range(91, 101)]
        assert exited["level"] == ("warning" if status else "info")


def test_what_we_say_of_the_last_request_comes_before_the_end() -> None:
    port = free_port()
    shim = {"http_proxy": f"127.0.0.1:{port}", "streams": None, "names": False}
    asking = (
        "import socket as s; c = s.create_connection(('127.0.0.1', {})); c.sendall({}); c.recv(9)"
    )
    requests = b"CONNECT n.test:443 HTTP/1.1\r\nHost: n.test:443\r\n\r\n"
    code = ";".join([asking.format(port, requests)] * 9)  # enough for us to be busy
    pair = logging_pair("unix", enclave={"shim": shim})
    with both(pair) as parent:
        status, _ = end(pair, sys.executable, "-c", code)
        assert status == 0
        parent.wait_for_event("enclave_exit")
        own = [line for line in parent.events("enclave_log") if line["source"] == "vsockproxy"]
        decided = [line for line in own if json.loads(line["text"])["event"] == "decision"]
        assert len(decided) == 9


def test_without_a_command_the_end_is_told_too(kind: LinkKind) -> None:
    pair = logging_pair(kind)
    with both(pair) as parent:
        enclave = pair.start_enclave()
        assert enclave.stop() == 0
        assert parent.wait_for_event("enclave_exit")["status"] == 0


def test_lines_too_long_are_cut_and_marked() -> None:
    pair = logging_pair("unix")
    with both(pair) as parent:
        script = "head -c 10000 /dev/zero; echo; head -c 5000 /dev/zero | tr '\\0' x; echo; echo z"
        end(pair, *SHELL, script)
        parent.wait_for_event("enclave_exit")
        whole = [""]
        for line in of_command(parent):
            whole[-1] += line["text"]
            if not line.get("continues"):
                whole.append("")
        assert whole == ["\0" * 10_000, "x" * 5000, "z", ""]
        assert not any("…" in line["text"] for line in of_command(parent))


@contextmanager
def asleep(pid: int) -> Iterator[None]:
    """A process does nothing while the body runs."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def numbers_to(last: int) -> list[str]:
    """What `seq` writes."""
    return [str(each) for each in range(1, last + 1)]


def test_a_parent_that_comes_late_gets_what_there_was() -> None:
    pair = logging_pair("unix")
    script = f"seq 1000; {until(pair.path / 'go')}"
    pair.enclave = enclave = Side("enclave", pair.enclave_config, (*SHELL, script))
    with closing(pair):
        enclave.wait_for_event("log_not_taken")
        parent = pair.start_parent()
        wait_until(parent, lambda: len(texts(parent)) == 1000)
        (pair.path / "go").touch()
        parent.wait_for_event("enclave_exit", status=0)
        assert texts(parent) == numbers_to(1000)
        assert parent.events("enclave_log_dropped") == []


def test_without_a_parent_the_end_waits_a_little_and_no_longer() -> None:
    pair = logging_pair("unix")
    with closing(pair):
        began = time.monotonic()
        assert end(pair, "true")[0] == 0
        assert time.monotonic() - began < END_SECONDS + 10


@pytest.mark.parametrize("killed", ["worker", "parent"])
def test_a_parent_that_is_restarted_gets_the_rest(killed: str) -> None:
    pair = logging_pair("unix")
    first, second = pair.path / "first", pair.path / "second"
    script = f"seq 1000; {until(first)}; seq 1001 2000; {until(second)}"
    with both(pair) as parent:
        pair.enclave = enclave = Side("enclave", pair.enclave_config, (*SHELL, script))
        wait_until(parent, lambda: len(texts(parent)) == 1000)
        before = of_command(parent)
        if killed == "worker":
            kill(parent.workers[0])
            parent.wait_for_event("worker_died")
            before = []
        else:
            kill_all(parent)
            parent = pair.start_parent()
        first.touch()
        wait_until(parent, lambda: "2000" in texts(parent))
        second.touch()
        parent.wait_for_event("enclave_exit", status=0)
        assert enclave.process.wait(60) == 0
        # A line that was written and not acknowledged is written again, under the same number.
        lines = {line["sequence"]: line["text"] for line in [*before, *of_command(parent)]}
        assert [lines[number] for number in sorted(lines)] == numbers_to(2000)


def test_a_parent_that_stops_takes_its_leave_of_the_stream() -> None:
    pair = logging_pair("unix")
    with both(pair) as parent:
        script = f"seq 1000; {until(pair.path / 'go')}; seq 1001 2000"
        pair.enclave = enclave = Side("enclave", pair.enclave_config, (*SHELL, script))
        wait_until(parent, lambda: len(texts(parent)) == 1000)
        before = texts(parent)
        began = time.monotonic()
        assert parent.stop() == 0
        assert time.monotonic() - began < DRAIN_SECONDS
        parent.kill()  # what is left of it here
        parent = pair.start_parent()
        (pair.path / "go").touch()
        parent.wait_for_event("enclave_exit")
        assert enclave.process.wait(60) == 0
        assert before + texts(parent) == numbers_to(2000)  # each once


def test_a_parent_that_does_not_read_makes_the_enclave_drop_and_count() -> None:
    pair = logging_pair("unix", buffer="64KiB")
    lines = 100_000
    with both(pair) as parent:
        with asleep(parent.workers[0]):
            script = f"seq {lines}; echo written >&2; {until(pair.path / 'go')}"
            pair.enclave = enclave = Side("enclave", pair.enclave_config, (*SHELL, script))
            assert enclave.process.stdout is not None
            output = enclave.process.stdout.read(len("\n".join(numbers_to(lines))) + 1)
        assert output.decode().splitlines() == numbers_to(lines)  # the command was not held back
        (pair.path / "go").touch()
        parent.wait_for_event("enclave_exit", status=0)
        assert_whole(parent)
        (dropped,) = parent.events("enclave_log_dropped")
        written = texts(parent)
        assert written == numbers_to(lines)[-len(written) :]  # the oldest are gone
        own_lines = 50
        assert 0 <= dropped["lines"] - (lines - len(written)) < own_lines


def test_a_log_that_nobody_reads_loses_no_audit_line() -> None:
    pair = logging_pair("unix", buffer="64KiB")
    lines = 50_000
    with both(pair) as parent:
        with unread(parent):
            status, _ = end(pair, *SHELL, f"seq {lines}")
            assert status == 0
        # The enclave is gone with what it still had. What was written is in order.
        parent.wait_for_event("link_down")
        assert parent.events("log_lines_dropped") == []
        assert_whole(parent)
        assert 100 < len(texts(parent)) < lines


def test_more_lines_a_second_than_an_enclave_may_write_wait_in_it() -> None:
    pair = logging_pair("unix", lines=100)
    with both(pair) as parent:
        script = f"seq 700; {until(pair.path / 'go')}"
        pair.enclave = Side("enclave", pair.enclave_config, (*SHELL, script))
        wait_until(parent, lambda: len(texts(parent)) == 700)
        (pair.path / "go").touch()
        parent.wait_for_event("enclave_exit")
        assert texts(parent) == numbers_to(700)
        first, *_, last = of_command(parent)
        assert logged_at(last) - logged_at(first) > 1  # 500 of them may come at once


def test_a_command_that_floods_and_ends_is_known_to_have_ended() -> None:
    pair = logging_pair("unix", lines=200)
    with both(pair) as parent:
        status, _ = end(pair, *SHELL, "seq 10000; kill -KILL $$")
        assert status == 137
        exited = parent.wait_for_event("enclave_exit", signal="SIGKILL")
        assert exited["last_lines"].split("\n") == numbers_to(10_000)[-10:]
        assert_whole(parent)


def test_a_killed_worker_of_the_enclave_loses_no_line() -> None:
    pair = logging_pair("unix")
    script = f"seq 1000; {until(pair.path / 'go')}; seq 1001 2000; {until(pair.path / 'end')}"
    with both(pair) as parent:
        pair.enclave = enclave = Side("enclave", pair.enclave_config, (*SHELL, script))
        wait_until(parent, lambda: len(texts(parent)) == 1000)
        (worker, *_) = [pid for pid in enclave.workers if is_worker(pid)]
        kill(worker)
        (pair.path / "go").touch()
        wait_until(parent, lambda: len(texts(parent)) == 2000)
        (pair.path / "end").touch()
        parent.wait_for_event("enclave_exit", status=0)
        assert texts(parent) == numbers_to(2000)
        assert_whole(parent)


def is_worker(pid: int) -> bool:
    """Whether a child of the supervisor is no command."""
    return b"enclave_side.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()


# ---------------------------------------------------------------- where nobody says so


AS_PID_1 = (sys.executable, "-m", "tests.support.one_process_namespace")


def pair_without_the_key() -> Pair:
    """A pair whose enclave's file says nothing of where its log goes."""
    return Pair("unix", [], enclave={"shim": {"http_proxy": None, "streams": None, "names": False}})


def command_of(pair: Pair) -> list[str]:
    return command_line("enclave", "--config", str(pair.enclave_config), *("--", "echo", "hi"))


def test_as_pid_1_without_a_terminal_the_log_goes_to_the_parent() -> None:
    pair = pair_without_the_key()
    with both(pair) as parent, Program([*AS_PID_1, *command_of(pair)]) as enclave:
        status, output = enclave.end()
        if status == NOT_PERMITTED:
            pytest.skip(f"no namespaces here: {enclave.lines}")
        assert (status, output) == (0, "hi\n")
        parent.wait_for_event("enclave_exit")
        assert texts(parent) == ["hi"]


def test_elsewhere_it_stays() -> None:
    pair = pair_without_the_key()
    with both(pair) as parent:
        assert end(pair, "echo", "hi") == (0, b"hi\n")
        parent.wait_for_event("link_down")
        assert parent.events("enclave_log") == parent.events("enclave_exit") == []


def test_a_terminal_stays_one_and_a_line_says_what_the_parent_does_not_get() -> None:
    pair = logging_pair("unix")
    with both(pair) as parent:
        line = shlex.join(command_line("enclave", "--config", str(pair.enclave_config)))
        with Shell() as shell:
            shell.wait_for("$ ")
            shell.type(f"{line} -- tty; echo 'ended'\n")
            shell.wait_for("/dev/pts/")
            shell.wait_for("ended")
        parent.wait_for_event("enclave_exit", status=0)
        assert of_command(parent) == []
        own = [line["text"] for line in parent.events("enclave_log")]
        assert any("stays on this terminal" in text for text in own)
