"""What curl sees of the SOCKS 5 proxy, beyond that it lets a name through or refuses it."""

from collections.abc import Callable

import pytest

from tests.sandbox.curl import PROXY_ERROR, RECEIVE_ERROR, curl
from tests.sandbox.destinations import LITERAL_V6
from tests.sandbox.sandboxes import Done, Sandbox, SandboxWith, need
from tests.sandbox.ways import PROXY_HOST, SOCKS5_PORT, Way
from tests.support.certificates import Authority
from tests.support.tls_origin import body_of

GREETING = "hello from origin.test, over TLSv1.3\n"
PROXY = f"{PROXY_HOST}:{SOCKS5_PORT}"

Curl = Callable[..., Done]


@pytest.fixture(scope="module")
def sandbox(sandbox_with: SandboxWith) -> Sandbox:
    return sandbox_with(Way.SOCKS5)


@pytest.fixture
def ask(sandbox: Sandbox, authority: Authority) -> Curl:
    """Runs curl with the words it is given, by the SOCKS proxy."""

    def run(*words: str) -> Done:
        return curl(sandbox, Way.SOCKS5, authority, "--socks5-hostname", PROXY, *words)

    return run


def test_a_user_name_and_a_password_in_the_url_do_no_harm(ask: Curl) -> None:
    done = ask("--proxy-user", "user:password", "https://origin.test/")
    assert (done.status, done.stdout) == (0, GREETING), done.stderr


def test_socks_4_is_turned_away(sandbox: Sandbox) -> None:
    need("curl")
    done = sandbox.run("curl", "-sS", "--socks4a", PROXY, "https://origin.test/")
    assert done.status == PROXY_ERROR
    assert "connection to proxy closed" in done.stderr


@pytest.mark.parametrize("host", ["plain.test", f"[{LITERAL_V6}]"])
def test_plain_http_is_allowed_where_a_rule_says_so(ask: Curl, host: str) -> None:
    done = ask(f"http://{host}/bytes/7")
    assert (done.status, done.stdout) == (0, body_of(7).decode()), done.stderr


def test_plain_http_elsewhere_is_reset_and_the_log_says_what_to_change(
    sandbox: Sandbox, ask: Curl
) -> None:
    done = ask("http://plain-by-mistake.test/")
    assert (done.status, done.stdout) == (RECEIVE_ERROR, "")
    assert "Connection reset by peer" in done.stderr
    line = sandbox.refusal("plain-by-mistake.test")
    assert (line["reason"], line["way"]) == ("not_tls", "socks5")
    assert "add require_tls: false at enclave.yaml:" in line["text"]


REFUSALS = {
    "a host that only the enclave lists": ("enclave-only.test", "not_listed", 2),
    "a destination that refuses the connection": ("away.test", "dial_refused", 5),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_curl_shows_what_the_parent_said(sandbox: Sandbox, ask: Curl, case: str) -> None:
    host, reason, reply = REFUSALS[case]
    done = ask(f"https://{host}/")
    assert done.status == PROXY_ERROR
    assert f"connection to {host}. ({reply})" in done.stderr
    line = sandbox.refusal(host)
    assert (line["reason"], line["side"]) == (reason, "parent")
