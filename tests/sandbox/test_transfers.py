"""What curl sends and gets, by every way in: large bodies, bodies of unknown length, none."""

from pathlib import Path

import pytest

from tests.sandbox.curl import curl
from tests.sandbox.sandboxes import SandboxWith
from tests.sandbox.ways import Way
from tests.support.certificates import Authority
from tests.support.tls_origin import body_of, digest_of

UPLOADED = "0123456789abcdef" * 20_000
LARGE_BYTES = 8_000_000

UPLOADS = {
    "a body of known length": ("--data-binary", "@-"),
    "a body in chunks": ("--data-binary", "@-", "-H", "Transfer-Encoding: chunked"),
    "a file of unknown length": ("-T", "-"),
}


@pytest.mark.parametrize("way", Way)
@pytest.mark.parametrize("case", UPLOADS)
def test_curl_uploads(sandbox_with: SandboxWith, authority: Authority, case: str, way: Way) -> None:
    words = (*UPLOADS[case], "https://origin.test/digest")
    done = curl(sandbox_with(way), way, authority, *words, typed=UPLOADED)
    assert (done.status, done.stdout) == (0, digest_of(UPLOADED.encode())), done.stderr


@pytest.mark.parametrize("way", Way)
@pytest.mark.parametrize("form", ["bytes", "chunked"])
def test_curl_downloads(
    sandbox_with: SandboxWith, authority: Authority, form: str, way: Way, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    words = ("-o", str(file), f"https://origin.test/{form}/{LARGE_BYTES}")
    done = curl(sandbox_with(way), way, authority, *words)
    assert (done.status, done.stderr) == (0, "")
    assert file.read_bytes() == body_of(LARGE_BYTES)


@pytest.mark.parametrize("way", Way)
def test_curl_asks_for_the_head_only(
    sandbox_with: SandboxWith, authority: Authority, way: Way
) -> None:
    done = curl(sandbox_with(way), way, authority, "-I", "https://origin.test/bytes/1234")
    assert done.status == 0
    assert "\nContent-Length: 1234\n" in done.stdout.replace("\r", "")
