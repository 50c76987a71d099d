"""`vsockproxy sandbox` for one command, as a user types it: without any file."""

from collections.abc import Mapping, Sequence

import pytest

from tests.sandbox.sandboxes import Done, need, run_sandbox
from tests.support.tls_origin import Origin, digest_of

CURL_RECEIVE_ERROR = 56
CURL_HTTP_ERROR = 22


@pytest.fixture(autouse=True)
def _curl_in_namespaces(namespaces: None) -> None:
    need("curl")


def curl(
    origin: Origin, trust: Mapping[str, str], arguments: Sequence[str], typed: bytes = b""
) -> Done:
    allowed = ["--allow", f"origin.test:443={origin.address}"]
    return run_sandbox(allowed, ["curl", "-sS", *arguments], trust, typed)


def test_stdin_and_stdout_are_the_commands(origin: Origin, trust: Mapping[str, str]) -> None:
    arguments = ["--data-binary", "@-", "https://origin.test/digest"]
    done = curl(origin, trust, arguments, typed=b"x\n")
    assert (done.status, done.stdout) == (0, digest_of(b"x\n")), done.stderr


def test_the_exit_status_is_the_commands(origin: Origin, trust: Mapping[str, str]) -> None:
    done = curl(origin, trust, ["--fail", "https://origin.test/missing"])
    assert (done.status, done.stdout) == (CURL_HTTP_ERROR, "")
    assert "404" in done.stderr


def test_without_files_and_allow_nothing_is_reached() -> None:
    done = run_sandbox([], ["curl", "-sS", "https://origin.test/"])
    assert (done.status, done.stdout) == (CURL_RECEIVE_ERROR, "")
    assert '"reason": "not_listed"' in done.stderr
    assert "add --allow origin.test:443" in done.stderr
