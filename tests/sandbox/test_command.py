"""`vsockproxy sandbox` for one command, as a user types it: without any file."""

import pytest

from tests.sandbox.curl import COULD_NOT_RESOLVE, HTTP_ERROR
from tests.sandbox.sandboxes import Done, need, run_sandbox
from tests.support.certificates import Authority
from tests.support.tls_origin import Origin, digest_of


@pytest.fixture(autouse=True)
def _curl_in_namespaces(namespaces: None) -> None:
    need("curl")


def curl(origin: Origin, authority: Authority, *words: str, typed: bytes = b"") -> Done:
    allowed = ["--allow", f"origin.test:443={origin.address}"]
    trust = {"CURL_CA_BUNDLE": str(authority.file)}
    return run_sandbox(allowed, ["curl", "-sS", *words], trust, typed)


def test_stdin_and_stdout_are_the_commands(origin: Origin, authority: Authority) -> None:
    words = ("--data-binary", "@-", "https://origin.test/digest")
    done = curl(origin, authority, *words, typed=b"x\n")
    assert (done.status, done.stdout) == (0, digest_of(b"x\n")), done.stderr


def test_the_exit_status_is_the_commands(origin: Origin, authority: Authority) -> None:
    done = curl(origin, authority, "--fail", "https://origin.test/missing")
    assert (done.status, done.stdout) == (HTTP_ERROR, "")
    assert "404" in done.stderr


def test_without_files_and_allow_nothing_is_found() -> None:
    done = run_sandbox([], ["curl", "-sS", "https://origin.test/"])
    assert (done.status, done.stdout) == (COULD_NOT_RESOLVE, "")
    assert "Could not resolve host: origin.test" in done.stderr
    assert '"reason": "not_listed"' in done.stderr
    assert "add --allow origin.test:PORT" in done.stderr
