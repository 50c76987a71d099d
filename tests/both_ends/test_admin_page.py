"""The admin page in headless Chromium, asked of a real parent."""

import subprocess
from pathlib import Path

import pytest

from tests.both_ends.test_admin import OTHER_CID, AdminPair
from tests.support import session_frames as wire
from tests.support.browser import chromium, picture, shown_text
from tests.support.exchange_pair import HOST, PORT, converse
from tests.support.hostile_peer import RawPeer
from tests.support.pair import echo

HOSTILE = (
    "<img src=x onerror=document.title='pwned'>.test",
    "</script><script>document.title='pwned'</script>",
    "'\"&lt;b&gt;{{7*7}}${7*7}.test",
)


def may_make_namespaces() -> bool:
    command = ["unshare", "--net", "true"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


pytestmark = [
    pytest.mark.skipif(chromium() is None, reason="needs Chromium: apt-get install chromium"),
    pytest.mark.skipif(not may_make_namespaces(), reason="needs root, for a network namespace"),
]


def test_the_page_shows_what_goes_on_and_runs_nothing_of_an_enclave(tmp_path: Path) -> None:
    with AdminPair(tmp_path) as rig:
        rig.origin.handler = echo
        rig.wait_until_ready()
        with rig.connect("shared") as sock, RawPeer.dial(rig.other_path) as peer:
            converse(sock, b"x" * 50_000)
            peer.greet()
            for number, host in enumerate(HOSTILE):
                peer.open(2 * number + 1, host, PORT)
                peer.wait_for(wire.REFUSED, 2 * number + 1)
            rig.admin.wait_until(
                lambda: (
                    len(rig.admin.status()["refusals"]) == len(HOSTILE)
                    and rig.admin.status()["totals"]["bytes_in"] == 50_000
                )
            )
            seen = shown_text(Path(rig.admin.path))
            assert seen.console == []
            assert "<title>vsockproxy</title>" in seen.output
            assert '<span id="state" class="pill good">ready</span>' in seen.output
            assert f">{HOST}:{PORT}</td>" in seen.output, "a stream"
            assert ">50.0 kB</td>" in seen.output, "its bytes"
            assert f">{OTHER_CID}</td>" in seen.output, "an enclave"
            assert ">not_listed</span>" in seen.output, "a refusal"
            assert "<path " in seen.output, "a plot"
            assert "<img" not in seen.output
            assert seen.output.count("<script>") == 1
            assert "&lt;img src=x onerror" in seen.output, "it is shown, as text"
            file = tmp_path / "page.png"
            assert picture(Path(rig.admin.path), file, size=(400, 900)).console == []
            assert file.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
