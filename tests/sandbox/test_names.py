"""What programs see of names, beyond that one is found or not; no variable tells them of it."""

from collections.abc import Callable

import pytest

from tests.sandbox.curl import COULD_NOT_RESOLVE, RECEIVE_ERROR, TLS_CONNECT_ERROR, curl
from tests.sandbox.destinations import LITERAL_V6
from tests.sandbox.sandboxes import PROXY_VARIABLES, Done, Sandbox, SandboxWith
from tests.sandbox.ways import Way
from tests.support.certificates import Authority
from tests.support.tls_origin import body_of

Curl = Callable[..., Done]


@pytest.fixture(scope="module")
def sandbox(sandbox_with: SandboxWith) -> Sandbox:
    return sandbox_with(Way.NAMES)


@pytest.fixture
def ask(sandbox: Sandbox, authority: Authority) -> Curl:
    """Runs curl with the words it is given."""

    def run(*words: str) -> Done:
        return curl(sandbox, Way.NAMES, authority, *words)

    return run


def test_no_variable_tells_of_a_proxy(sandbox: Sandbox) -> None:
    lines = sandbox.run("env").stdout.splitlines()
    assert "VSOCKPROXY_STREAMS=/run/vsockproxy/streams.sock" in lines
    assert not {line.partition("=")[0].lower() for line in lines} & set(PROXY_VARIABLES)


@pytest.mark.parametrize("host", ["plain.test", f"[{LITERAL_V6}]"])
def test_plain_http_is_allowed_where_a_rule_says_so(ask: Curl, host: str) -> None:
    done = ask(f"http://{host}/bytes/7")
    assert (done.status, done.stdout) == (0, body_of(7).decode()), done.stderr


def test_a_host_that_only_the_enclave_lists_is_not_found(sandbox: Sandbox, ask: Curl) -> None:
    done = ask("https://enclave-only.test/")
    assert (done.status, done.stdout) == (COULD_NOT_RESOLVE, "")
    line = sandbox.refusal("enclave-only.test")
    assert (line["reason"], line["side"], line["way"]) == ("not_listed", "parent", "names")


RESETS = {
    "plain HTTP where TLS is wanted": ("http://plain-by-mistake.test/", RECEIVE_ERROR, "not_tls"),
    "a destination that refuses the connection": (
        "https://away.test/",
        TLS_CONNECT_ERROR,
        "dial_refused",
    ),
}


@pytest.mark.parametrize("case", RESETS)
def test_a_refusal_after_the_lookup_resets_curl(sandbox: Sandbox, ask: Curl, case: str) -> None:
    url, status, reason = RESETS[case]
    done = ask(url)
    assert (done.status, done.stdout) == (status, "")
    assert "Connection reset by peer" in done.stderr
    assert sandbox.refusal(url.split("/")[2])["reason"] == reason
