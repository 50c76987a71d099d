"""The Debian archive is found in either form of apt's sources."""

from pathlib import Path

import pytest

from tests.on_vsock.machine.failure import MachineError
from tests.on_vsock.machine.mirror import find_mirror

DEBIAN = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\nVERSION_CODENAME=bookworm\n'
MIRROR = "http://mirror.test/debian"

FOUND = {
    "a stanza": {
        "sources.list.d/debian.sources": f"Types: deb\nURIs: {MIRROR}\nSuites: bookworm\n"
        "Components: main\n"
    },
    "a stanza with comments, several values and a key in indented lines": {
        "sources.list.d/debian.sources": f"Types: deb deb-src\n# old: http://old.test\n"
        f"URIs: {MIRROR} http://second.test/debian\nSuites: bookworm bookworm-updates\n"
        "Components: main contrib\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mDME\n"
    },
    "the archive after the one of security updates": {
        "sources.list.d/debian.sources": "Types: deb\nURIs: http://mirror.test/debian-security\n"
        "Suites: bookworm-security\nComponents: main\n\n"
        f"Types: deb\nURIs: {MIRROR}\nSuites: bookworm\nComponents: main\n"
    },
    "a stanza after one that is turned off": {
        "sources.list.d/debian.sources": "Enabled: no\nTypes: deb\nURIs: http://off.test/debian\n"
        f"Suites: bookworm\nComponents: main\n\nTypes: deb\nURIs: {MIRROR}\nSuites: stable\n"
        "Components: main\n"
    },
    "a line": {"sources.list": f"deb {MIRROR} bookworm main\n"},
    "a line with options and a comment": {
        "sources.list": "# deb http://old.test/debian bookworm main\n"
        "deb-src http://source.test/debian bookworm main\n"
        f"deb [arch=amd64 signed-by=/key.gpg] {MIRROR} bookworm main contrib # ours\n"
    },
    "a line in a part, beside another vendor's": {
        "sources.list.d/a.list": "deb http://vendor.test/apt stable vendor\n",
        "sources.list.d/b.list": f"deb {MIRROR} bookworm main\n",
    },
}


def write(folder: Path, files: dict[str, str]) -> None:
    """Files by their names below `folder`."""
    (folder / "sources.list.d").mkdir()
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")


@pytest.mark.parametrize("case", FOUND)
def test_the_archive_is_found(case: str, tmp_path: Path) -> None:
    write(tmp_path, {"os-release": DEBIAN, **FOUND[case]})
    assert find_mirror(tmp_path, tmp_path / "os-release") == MIRROR


def test_no_source_of_this_release_is_said(tmp_path: Path) -> None:
    line = "deb http://vendor.test/apt stable vendor\n"
    write(tmp_path, {"os-release": DEBIAN, "sources.list": line})
    with pytest.raises(MachineError, match=r"no source under .* has component main"):
        find_mirror(tmp_path, tmp_path / "os-release")


def test_another_distribution_is_said(tmp_path: Path) -> None:
    write(tmp_path, {"os-release": 'PRETTY_NAME="Other 1.0"\nID=other\n'})
    with pytest.raises(MachineError, match=r"Debian's and this is Other 1\.0: use a machine whose"):
        find_mirror(tmp_path, tmp_path / "os-release")
