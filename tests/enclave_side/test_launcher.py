import errno
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from enclave_side.fence import Fence, plan_fence
from enclave_side.launcher import SECCOMP_CALLS
from enclave_side.seccomp_filter import Instruction, assemble
from tests.support.launching import UNFENCED, Launched, launch
from tests.support.one_process_namespace import NOT_PERMITTED
from tests.support.program import environment
from tests.support.static_programs import VSOCK_CALLS, build_static
from vsockproxy.config.capabilities import capability_mask
from vsockproxy.config.model import Command

FENCE = plan_fence(Command())
OPEN_FENCE = plan_fence(Command(vsock="allow"))

NO_CAPABILITIES = "0" * 16

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to change the user")


def with_instruction(instruction: str) -> list[str]:
    """A launcher with one more instruction."""
    *words, instructions = UNFENCED.launcher()
    return [*words, f"{instructions} {instruction}"]


def own_status(launcher: Sequence[str]) -> dict[str, str]:
    """What /proc/self/status says of a command."""
    done = launch(launcher, "cat", "/proc/self/status")
    assert (done.status, done.report) == (0, "")
    return dict(line.split(":\t", 1) for line in done.stdout.splitlines() if ":\t" in line)


# What the filter does to a program that calls the kernel by itself.


@pytest.fixture(scope="module")
def vsock_calls(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(build_static(VSOCK_CALLS, tmp_path_factory.mktemp("static")))


def errors(stdout: str) -> dict[str, int | str]:
    """The errno of each way to call the kernel, 0 for none; "fault" where there is no such way."""
    pairs = (line.split() for line in stdout.splitlines())
    return {way: result if result == "fault" else int(result) for way, result in pairs}


NATIVE = ("native", "native-high-half", "native-datagram", "socketpair")
IO_URING = ("io_uring_setup", "io_uring_enter", "io_uring_register")
FOREIGN = ("x32", "i386", "i386-socketcall")
HARMLESS = ("tcp", "unix")


def fenced_off(bare: dict[str, int | str], ways: Sequence[str]) -> dict[str, int | str]:
    return {way: errno.ENOSYS if bare[way] != "fault" else "fault" for way in ways if way in bare}


def test_a_static_program_finds_no_way_to_vsock(vsock_calls: str) -> None:
    bare = errors(subprocess.run([vsock_calls], capture_output=True, text=True, check=True).stdout)
    done = launch(FENCE.launcher(), vsock_calls)
    assert done.report == ""
    assert errors(done.stdout) == {
        **dict.fromkeys(NATIVE, errno.EAFNOSUPPORT),
        **dict.fromkeys(IO_URING, errno.ENOSYS),
        **fenced_off(bare, FOREIGN),
        **dict.fromkeys(HARMLESS, 0),
    }


def test_where_vsock_is_allowed_other_architectures_are_still_unknown(vsock_calls: str) -> None:
    bare = errors(subprocess.run([vsock_calls], capture_output=True, text=True, check=True).stdout)
    assert errors(launch(OPEN_FENCE.launcher(), vsock_calls).stdout) == {
        **{way: bare[way] for way in (*NATIVE, *IO_URING, *HARMLESS)},
        **fenced_off(bare, FOREIGN),
    }


def test_the_filter_is_inherited(vsock_calls: str) -> None:
    done = launch(FENCE.launcher(), "sh", "-c", f"({vsock_calls}) | cat")
    assert errors(done.stdout)["native"] == errno.EAFNOSUPPORT


# What the command may do.


@pytest.mark.parametrize(
    "fence",
    [pytest.param(FENCE, id="without vsock"), pytest.param(OPEN_FENCE, id="with vsock")],
)
def test_the_command_has_no_capability_and_gets_none(fence: Fence) -> None:
    status = own_status(fence.launcher())
    sets = {name: status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")}
    assert sets == dict.fromkeys(sets, NO_CAPABILITIES)
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


@as_root
def test_root_cannot_regain_a_capability() -> None:
    assert own_status(FENCE.launcher())["CapBnd"] == NO_CAPABILITIES


@as_root
@pytest.mark.parametrize("user", ["root", "nobody"])
def test_listed_capabilities_are_kept(user: str) -> None:
    names = ["NET_BIND_SERVICE", "SYS_NICE"]
    fence = plan_fence(Command(user=user, capabilities=names))
    status = own_status(fence.launcher())
    sets = {status[f"Cap{name}"] for name in ("Prm", "Eff", "Bnd")}
    assert sets == {f"{capability_mask(names):016x}"}
    assert fence.left_out == []


@as_root
def test_a_capability_above_the_32nd_is_kept() -> None:
    fence = plan_fence(Command(user="nobody", capabilities=["SYSLOG"]))
    assert own_status(fence.launcher())["CapEff"] == f"{1 << 34:016x}"


@as_root
def test_the_user_is_another_with_all_groups() -> None:
    nobody = pwd.getpwnam("nobody")
    fence = plan_fence(Command(user="nobody"))
    status = own_status(fence.launcher())
    assert status["Uid"].split() == [str(nobody.pw_uid)] * 4
    assert status["Gid"].split() == [str(nobody.pw_gid)] * 4
    groups = os.getgrouplist("nobody", nobody.pw_gid)
    assert set(map(int, status["Groups"].split())) == set(groups)
    assert status["CapEff"] == NO_CAPABILITIES


def test_capabilities_go_where_the_bounding_set_must_stay() -> None:
    """Without CAP_SETPCAP: in a container that took it away, or as somebody else."""
    done = launch(FENCE.launcher(), "cat", "/proc/self/status", within=UNFENCED)
    assert (done.report, done.status) == ("", 0)
    assert f"CapEff:\t{NO_CAPABILITIES}" in done.stdout


# What cannot be done is reported, and then nothing runs.


def test_a_directory_of_any_name(tmp_path: Path) -> None:
    directory = tmp_path / "a b=c ü"
    directory.mkdir()
    done = launch(UNFENCED.launcher(directory=str(directory)), "pwd")
    assert (done.report, done.stdout) == ("", f"{directory}\n")


@as_root
def test_a_directory_is_entered_as_the_user(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o700)
    *words, instructions = UNFENCED.launcher(directory=str(tmp_path / "closed"))
    done = launch([*words, f"{instructions} user=65534:65534:65534"], "pwd")
    assert done.report == f"directory {errno.EACCES} Permission denied"


def no_seccomp_filters() -> Fence:
    """Makes of this kernel one that has none, as far as what runs within can tell."""
    call = SECCOMP_CALLS[os.uname().machine]
    refuses = [
        Instruction(0x20, 0),  # load the number
        Instruction(0x15, call, if_false=1),  # if it is seccomp's
        Instruction(0x06, 0x0005_0000 | errno.EINVAL),
        Instruction(0x06, 0x7FFF_0000),  # else allow it
    ]
    return Fence(capabilities=0, seccomp_program=assemble(refuses), demands_filter=True)


FAILURES: dict[str, tuple[list[str], Fence | None, str]] = {
    "a namespace that is not open": (
        with_instruction("namespace=900000"),
        None,
        f"namespace {errno.EBADF} Bad file descriptor",
    ),
    "a descriptor that is no namespace": (
        with_instruction("namespace=0"),
        None,
        f"namespace {errno.EINVAL} Invalid argument",
    ),
    "a directory that is not there": (
        UNFENCED.launcher(directory="/nowhere"),
        None,
        f"directory {errno.ENOENT} No such file or directory",
    ),
    "another user, and not root": (
        with_instruction("user=65534:65534:65534"),
        UNFENCED,
        f"user {errno.EPERM} Operation not permitted",
    ),
    "a capability that is not there": (
        [*UNFENCED.launcher()[:-1], "capabilities=400"],
        UNFENCED,
        f"capabilities {errno.EPERM} Operation not permitted",
    ),
    "a kernel without seccomp filters": (
        FENCE.launcher(),
        no_seccomp_filters(),
        f"filter {errno.EINVAL} this kernel has no seccomp filters (CONFIG_SECCOMP_FILTER): "
        "with command: {vsock: allow} the command runs without",
    ),
    "an instruction of another version": (
        with_instruction("pledge=stdio"),
        None,
        "instructions 0 ValueError('unknown: pledge')",
    ),
    "a filter that is none": (
        with_instruction("filter=zz"),
        None,
        "filter 0 ValueError('non-hexadecimal number found in fromhex() arg at position 0')",
    ),
}


@pytest.mark.parametrize(("launcher", "within", "report"), FAILURES.values(), ids=FAILURES)
def test_a_step_that_fails_is_reported_and_nothing_runs(
    launcher: list[str], within: Fence | None, report: str
) -> None:
    done = launch(launcher, "echo", "I run", within=within)
    assert done == Launched(1, "", "", report)


def test_where_vsock_is_allowed_no_filter_is_needed() -> None:
    done = launch(OPEN_FENCE.launcher(), "echo", "I run", within=no_seccomp_filters())
    assert (done.stdout, done.report) == ("I run\n", "")


def not_executed(number: int) -> str:
    return f"exec {number} {os.strerror(number)}"


PROGRAMS: dict[str, tuple[str, str]] = {
    "a path that is not there": ("/nowhere/at/all", not_executed(errno.ENOENT)),
    "a name that PATH has not": ("no-such-program", not_executed(errno.ENOENT)),
    "an empty name": ("", not_executed(errno.ENOENT)),
    "below what is no directory": ("/etc/passwd/x", not_executed(errno.ENOTDIR)),
    "a directory": ("/", not_executed(errno.EACCES)),
    "a file that is not executable": ("/etc/passwd", not_executed(errno.EACCES)),
}


@pytest.mark.parametrize(("program", "report"), PROGRAMS.values(), ids=PROGRAMS)
def test_a_program_that_is_none_is_reported(program: str, report: str) -> None:
    assert launch(FENCE.launcher(), program) == Launched(1, "", "", report)


def script(path: Path, text: str, mode: int = 0o755) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\necho {text}\n")
    path.chmod(mode)


def test_path_is_searched_as_execvp_does(tmp_path: Path) -> None:
    script(tmp_path / "refused" / "program", "not executable", mode=0o644)
    script(tmp_path / "good" / "program", "found")
    script(tmp_path / "last" / "program", "too late")
    script(tmp_path / "here", "in the working directory")
    folders = [tmp_path / name for name in ("none", "refused", "good", "last")]
    variables = {"PATH": ":".join(["/dev/null", "", *map(str, folders)])}

    def found(name: str) -> Launched:
        return launch(FENCE.launcher(), name, environment=variables, cwd=tmp_path)

    assert found("program").stdout == "found\n"
    assert found("here").stdout == "in the working directory\n"
    variables["PATH"] = str(tmp_path / "refused")
    assert found("program").report == not_executed(errno.EACCES)


def test_a_file_in_no_format_is_reported(tmp_path: Path) -> None:
    (tmp_path / "junk").write_bytes(b"\0\1\2\3")
    (tmp_path / "junk").chmod(0o755)
    done = launch(FENCE.launcher(), str(tmp_path / "junk"))
    assert done.report == not_executed(errno.ENOEXEC)


# As if nothing stood between.


def test_every_byte_of_the_arguments_arrives() -> None:
    strange = bytes(range(1, 256))
    done = launch(FENCE.launcher(), "printf", "%s", strange, environment={"LC_ALL": "C"})
    assert os.fsencode(done.stdout) == strange


ENVIRONMENTS: dict[str, dict[str, str]] = {
    "empty": {},
    "one": {"ONLY": "this"},
    "no locale, where Python adds one": {"LANG": "C"},
    "a locale that Python would replace": {"LC_CTYPE": "POSIX"},
    "bytes that are no text": {"BYTES": "\udcff\udc80"},
    "for Python, which must not heed it": {"PYTHONHOME": "/nowhere", "PYTHONVERBOSE": "1"},
    "values with = and nothing": {"EQUALS": "a=b=c", "EMPTY": ""},
}


@pytest.mark.parametrize("variables", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_the_environment_is_the_commands(variables: dict[str, str]) -> None:
    done = launch(FENCE.launcher(), "env", "-0", environment=variables)
    assert (done.report, done.stderr) == ("", "")
    found = dict(entry.split("=", 1) for entry in done.stdout.split("\0")[:-1])
    assert found == variables


def test_the_command_gets_the_three_descriptors_only() -> None:
    done = launch(FENCE.launcher(), "ls", "/proc/self/fd", within=UNFENCED)
    assert set(done.stdout.split()) == {"0", "1", "2", "3"}, "3 is the folder itself"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_during_the_start_ends_it_without_a_word(
    number: signal.Signals, tmp_path: Path
) -> None:
    """It waits for the exec, or comes after it: the result is the same."""
    read_end, write_end = os.pipe()
    os.set_inheritable(write_end, True)
    command = [*FENCE.launcher(), str(write_end), "sleep", "60"]
    pid = os.posix_spawn(
        command[0],
        command,
        os.environ,
        setsigmask=[number],
        setsigdef=[number],
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 2, str(tmp_path / "stderr"), os.O_WRONLY | os.O_CREAT, 0o600)
        ],
    )
    os.close(write_end)
    os.kill(pid, number)
    _, status = os.waitpid(pid, 0)
    with open(read_end, "rb") as report:
        assert report.read() == b""
    assert os.waitstatus_to_exitcode(status) == -number
    assert (tmp_path / "stderr").read_bytes() == b""


def test_signals_that_were_ignored_stay_so_and_no_others() -> None:
    in_the_background = ["sh", "-c", "trap '' INT QUIT; exec \"$@\"", "sh", *FENCE.launcher()]
    ignored = int(own_status(in_the_background)["SigIgn"], 16)
    by_python = (signal.SIGPIPE, signal.SIGXFSZ)
    watched = (signal.SIGINT, signal.SIGQUIT, *by_python)
    assert [number for number in watched if ignored >> (number - 1) & 1] == [
        signal.SIGINT,
        signal.SIGQUIT,
    ]


def test_it_is_the_same_process_in_the_same_group() -> None:
    done = launch(FENCE.launcher(), "sh", "-c", "cut -d' ' -f5 /proc/self/stat; echo $PPID")
    assert done.stdout.split() == [str(os.getpgrp()), str(os.getpid())]


JOIN = """
import os, sys
from enclave_side.namespaces import Namespace, NamespaceError, map_to_root, unshare
from tests.support.launching import UNFENCED, launch
user, group = os.geteuid(), os.getegid()
try:
    unshare(Namespace.USER | Namespace.NETWORK)
    map_to_root(user, group)
except NamespaceError as error:
    sys.exit(int(sys.argv[1]))
wanted = os.readlink("/proc/self/ns/net")
descriptor = os.open("/proc/self/ns/net", os.O_RDONLY)
unshare(Namespace.NETWORK)
launcher = UNFENCED.launcher(descriptor)
done = launch(launcher, "sh", "-c", "readlink /proc/$$/ns/net; ls /proc/$$/fd", passed=[descriptor])
assert done.report == "", done.report
found, *descriptors = done.stdout.split()
assert found == wanted != os.readlink("/proc/self/ns/net")
assert not {str(descriptor)} & set(descriptors), descriptors
"""


def test_the_command_runs_in_the_network_namespace_that_is_passed() -> None:
    done = subprocess.run(
        [sys.executable, "-c", JOIN, str(NOT_PERMITTED)],
        env=environment(),
        capture_output=True,
        text=True,
    )
    if done.returncode == NOT_PERMITTED:
        pytest.skip("user namespaces are not permitted here")
    assert done.returncode == 0, done.stderr


# What it costs.

SLOW_MODULES = {
    "collections",
    "enum",
    "functools",
    "pathlib",
    "re",
    "signal",
    "subprocess",
    "typing",
}


def test_it_imports_next_to_nothing() -> None:
    *python, launcher, _ = FENCE.launcher()
    done = subprocess.run(
        [*python, "-X", "importtime", launcher, "", "2", "/nowhere"], capture_output=True, text=True
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "ctypes" in imported
    assert not imported & SLOW_MODULES


@pytest.mark.alone
def test_it_takes_little_more_than_pythons_own_start() -> None:
    report = os.open(os.devnull, os.O_WRONLY)
    os.set_inheritable(report, True)

    def best_seconds(command: list[str]) -> float:
        best = float("inf")
        for _ in range(20):
            started = time.perf_counter()
            _, status = os.waitpid(os.posix_spawn(command[0], command, os.environ), 0)
            best = min(best, time.perf_counter() - started)
            assert status == 0
        return best

    bare = best_seconds([*FENCE.launcher()[:3], "-c", ""])
    launched = best_seconds([*FENCE.launcher(), str(report), "true"])
    os.close(report)
    assert launched < 2.5 * bare
