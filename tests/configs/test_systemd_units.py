"""The unit files: what systemd says of them, and whether they fit the commands that they run."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml

from vsockproxy.cli.main import main
from vsockproxy.config.enclave_run import EnclaveRun, parse_enclave_run
from vsockproxy.config.model import CREDENTIALS_SOCKET

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "configs" / "systemd"
DROP_INS = UNITS / "examples" / "vsockproxy-parent.service.d"
PROGRAM = "/opt/vsockproxy/bin/vsockproxy"
"""Where the units expect it."""

SYSTEMD = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(SYSTEMD is None, reason="needs systemd-analyze (systemd)")

EXPOSURES = {
    "vsockproxy-parent.service": 1.1,
    "vsockproxy-credentials.service": 1.0,
    # It binds a vsock port itself, as the unit that it stands in for does.
    "nitro-enclaves-vsock-proxy.service": 1.3,
    # nitro-cli needs a device, vsock, and other users' processes.
    "vsockproxy-enclave@.service": 1.5,
}
"""The highest exposure, of 10, that `systemd-analyze security` may find in each."""

SERVICES = sorted(EXPOSURES)
SOCKETS = ["vsockproxy-parent.socket"]


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units in a folder of their own, with a program that exists."""
    program = shutil.which("vsockproxy", path=str(Path(sys.executable).parent))
    assert program is not None, "install the project: pip install -e ."
    for path in UNITS.iterdir():
        if path.is_file():
            text = path.read_text(encoding="utf-8").replace(PROGRAM, program)
            (tmp_path / path.name).write_text(text, encoding="utf-8")
    return tmp_path


def analyze(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    assert SYSTEMD is not None  # the tests are marked
    return subprocess.run(
        [SYSTEMD, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        # The trailing colon adds systemd's own units.
        env={"PATH": "/usr/bin:/bin", "SYSTEMD_UNIT_PATH": f"{folder}:", "LC_ALL": "C.UTF-8"},
    )


def exposure(folder: Path, unit: str) -> float:
    done = analyze(folder, "security", "--offline=true", "--no-pager", f"./{unit}")
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found is not None, done.stdout + done.stderr
    return float(found[1])


def directives(path: Path) -> dict[str, list[tuple[str, str]]]:
    """Keys and values of each section, in their order; keys may be given several times."""
    found: dict[str, list[tuple[str, str]]] = {}
    section = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(section, []).append((key, value))
    return found


def values(unit: str, section: str, key: str) -> list[str]:
    return [value for name, value in directives(UNITS / unit)[section] if name == key]


def test_every_unit_is_tested() -> None:
    assert sorted(path.name for path in UNITS.iterdir() if path.is_file()) == sorted(
        [*SERVICES, *SOCKETS]
    )


@needs_systemd
@pytest.mark.parametrize("unit", [*SERVICES, *SOCKETS])
def test_systemd_finds_no_fault(units: Path, unit: str) -> None:
    name = unit
    if "@" in unit:  # a template is verified as one of its instances
        name = unit.replace("@", "@web")
        (units / unit).rename(units / name)
    done = analyze(units, "verify", "--recursive-errors=yes", "--man=no", f"./{name}")
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@needs_systemd
@pytest.mark.parametrize("unit", SERVICES)
def test_a_unit_is_exposed_no_more_than_it_has_to_be(units: Path, unit: str) -> None:
    assert exposure(units, unit) <= EXPOSURES[unit]


@needs_systemd
def test_with_a_list_of_addresses_the_main_unit_is_exposed_less(units: Path) -> None:
    folder = units / "vsockproxy-parent.service.d"
    folder.mkdir()
    shutil.copy(DROP_INS / "allow-addresses.conf", folder)
    assert exposure(units, "vsockproxy-parent.service") <= 1.0


@needs_systemd
@pytest.mark.parametrize("name", sorted(path.name for path in DROP_INS.iterdir()))
def test_systemd_finds_no_fault_with_a_drop_in(units: Path, name: str) -> None:
    folder = units / "vsockproxy-parent.service.d"
    folder.mkdir()
    shutil.copy(DROP_INS / name, folder)
    words = ("verify", "--recursive-errors=yes", "--man=no", "./vsockproxy-parent.service")
    done = analyze(units, *words)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("unit", SERVICES)
def test_a_unit_runs_a_command_with_options_that_exist(unit: str) -> None:
    (line,) = values(unit, "Service", "ExecStart")
    program, name, *words = shlex.split(line)
    assert program == PROGRAM
    context = click.Context(main)
    command = main.get_command(context, name)
    assert command is not None
    command.make_context(name, words)  # raises for what it does not know


@pytest.mark.parametrize("unit", SERVICES)
def test_a_unit_has_no_power(unit: str) -> None:
    service = dict(directives(UNITS / unit)["Service"])
    for key in ("CapabilityBoundingSet", "AmbientCapabilities"):
        assert service[key] == ""
    for key in ("DynamicUser", "NoNewPrivileges", "MemoryDenyWriteExecute"):
        assert service[key] == "yes"
    assert service["Restart"] == "always"


@pytest.mark.parametrize("unit", SERVICES)
def test_only_the_credentials_unit_reaches_the_metadata_service(unit: str) -> None:
    denied = " ".join(values(unit, "Service", "IPAddressDeny")).split()
    allowed = " ".join(values(unit, "Service", "IPAddressAllow")).split()
    assert "any" in denied or {"link-local", "169.254.169.254/32", "fd00:ec2::/32"} <= set(denied)
    is_credentials = unit == "vsockproxy-credentials.service"
    assert ("169.254.169.254/32" in allowed) == is_credentials
    if is_credentials:
        assert denied == ["any"]
        assert allowed == ["169.254.169.254/32", "fd00:ec2::254/128"]


def test_every_unit_says_when_it_serves_and_is_watched() -> None:
    for unit in SERVICES:
        service = dict(directives(UNITS / unit)["Service"])
        assert (service["Type"], service["NotifyAccess"]) == ("notify", "main")
        assert int(service["WatchdogSec"]) >= 15


def test_the_example_of_an_enclave_is_valid_and_its_values_are_the_defaults() -> None:
    path = UNITS / "examples" / "enclaves" / "web.yaml"
    config = parse_enclave_run(path.read_bytes(), str(path))
    assert set(yaml.safe_load(path.read_bytes())) == set(EnclaveRun.__struct_fields__)
    default = EnclaveRun(eif=config.eif, cpus=config.cpus, memory=config.memory)
    for name in ("debug", "admin", "nitro_cli"):
        assert getattr(config, name) == getattr(default, name), name
    assert config.name == "web"


def test_the_parent_has_time_to_drain_and_gets_its_vsock_ports() -> None:
    unit = "vsockproxy-parent.service"
    assert values(unit, "Service", "TimeoutStopSec") == ["45"]
    assert values(unit, "Service", "ExecReload") == ["kill -HUP $MAINPID"]
    assert values(unit, "Service", "Type") == ["notify"]
    assert values("vsockproxy-parent.socket", "Socket", "ListenStream") == ["vsock::5000"]
    assert "AF_VSOCK" not in values(unit, "Service", "RestrictAddressFamilies")[0]


def test_an_enclave_starts_when_the_parent_serves() -> None:
    unit = "vsockproxy-enclave@.service"
    for key in ("Wants", "After"):
        assert "vsockproxy-parent.service" in values(unit, "Unit", key)[0].split()


def test_the_credentials_socket_is_where_everybody_looks_for_it() -> None:
    (line,) = values("vsockproxy-credentials.service", "Service", "ExecStart")
    assert f"unix://{CREDENTIALS_SOCKET}?mode=0660" in line
    (directory,) = values("vsockproxy-credentials.service", "Service", "RuntimeDirectory")
    assert Path(CREDENTIALS_SOCKET).parent == Path("/run", directory)
    group = values("vsockproxy-credentials.service", "Service", "Group")
    drop_in = (DROP_INS / "credentials.conf").read_text(encoding="utf-8")
    assert f"SupplementaryGroups={group[0]}" in drop_in
    aws = values("nitro-enclaves-vsock-proxy.service", "Service", "SupplementaryGroups")
    assert aws == group
