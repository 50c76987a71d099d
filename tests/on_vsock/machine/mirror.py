"""Where this machine's apt gets Debian from, so that nothing has to name a server.

Reads both forms of sources.list(5): one line for each source, and deb822 stanzas in .sources files.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.on_vsock.machine.failure import MachineError

APT_FOLDER = Path("/etc/apt")
OS_RELEASE = Path("/etc/os-release")

_RELEASE_NAMES = frozenset({"stable", "oldstable", "oldoldstable", "testing", "unstable", "sid"})


@dataclass(frozen=True, slots=True)
class Source:
    """One enabled source of binary packages."""

    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]


def parse_one_line(text: str) -> Iterator[Source]:
    """The sources of a .list file: `deb [option=value ...] URI SUITE COMPONENT...` on each line."""
    for line in text.splitlines():
        match = re.match(r"deb\s+(?:\[[^\]]*\]\s*)?(\S+)\s+(\S+)((?:\s+[^\s#]+)*)", line.strip())
        if match:
            uri, suite, components = match.groups()
            yield Source(uri, (suite,), tuple(components.split()))


def parse_stanzas(text: str) -> Iterator[Source]:
    """The sources of a .sources file: stanzas of `Field: values`, parted by empty lines."""
    for stanza in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line.startswith("#"):
                continue
            if line[:1].isspace():  # a field goes on in lines that are indented
                fields[name] = f"{fields.get(name, '')} {line.strip()}"
            else:
                name, _, value = line.partition(":")
                name = name.strip().lower()
                fields[name] = value.strip()
        is_enabled = fields.get("enabled", "yes").lower() not in {"no", "false", "0", "off"}
        if is_enabled and "deb" in fields.get("types", "").split():
            suites = tuple(fields.get("suites", "").split())
            components = tuple(fields.get("components", "").split())
            for uri in fields.get("uris", "").split():
                yield Source(uri, suites, components)


def find_mirror(apt_folder: Path = APT_FOLDER, os_release: Path = OS_RELEASE) -> str:
    """The URI of the Debian archive that this machine is configured with.

    Security and update archives hold other suites than the archive itself and are passed over.

    Raises:
        MachineError: this is not Debian, or no source has the machine's own release.
    """
    release = dict(_assignments(os_release.read_text(encoding="utf-8")))
    if release.get("ID") != "debian":
        raise MachineError(
            f"the kernel to run is Debian's and this is {release.get('PRETTY_NAME', 'another')}",
            "use a machine whose kernel has vsock_loopback (modprobe vsock_loopback)",
        )
    own_names = _RELEASE_NAMES | {release.get("VERSION_CODENAME", "")}
    for source in _configured(apt_folder):
        if "main" in source.components and own_names.intersection(source.suites):
            return source.uri
    raise MachineError(
        f"no source under {apt_folder} has component main of this Debian release",
        "add the release to /etc/apt/sources.list.d/debian.sources",
    )


def _configured(apt_folder: Path) -> Iterator[Source]:
    parts = apt_folder / "sources.list.d"
    for path in [apt_folder / "sources.list", *sorted(parts.glob("*.list"))]:
        if path.is_file():
            yield from parse_one_line(path.read_text(encoding="utf-8"))
    for path in sorted(parts.glob("*.sources")):
        yield from parse_stanzas(path.read_text(encoding="utf-8"))


def _assignments(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals:
            yield name.strip(), value.strip().strip("\"'")
