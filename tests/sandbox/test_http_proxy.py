"""What programs see of the HTTP proxy, beyond a tunnel that it opens or refuses."""

import dataclasses
import sys
from collections.abc import Callable

import pytest

from tests.sandbox.clients.client import Places
from tests.sandbox.clients.table import CLIENTS
from tests.sandbox.curl import RECEIVE_ERROR, curl
from tests.sandbox.sandboxes import AWS_VARIABLES, Done, Sandbox, SandboxWith
from tests.sandbox.ways import Way
from tests.support.aws_answers import CALLER_ARN
from tests.support.certificates import Authority

BOTO3_STS = """
import boto3, sys
print(boto3.client("sts", endpoint_url=sys.argv[1]).get_caller_identity()["Arn"])
"""

Curl = Callable[..., Done]


@pytest.fixture(scope="module")
def sandbox(sandbox_with: SandboxWith) -> Sandbox:
    return sandbox_with(Way.HTTP_PROXY)


@pytest.fixture
def ask(sandbox: Sandbox, authority: Authority) -> Callable[..., Done]:
    """Runs curl with the words it is given."""

    def run(*words: str) -> Done:
        return curl(sandbox, Way.HTTP_PROXY, authority, *words)

    return run


def test_the_command_is_told_of_the_proxy(sandbox: Sandbox) -> None:
    lines = sandbox.run("env").stdout.splitlines()
    names = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
    assert {f"{name}=http://127.0.0.1:3128" for name in names} <= set(lines)


def test_curl_sees_which_error_a_refused_tunnel_had(ask: Curl) -> None:
    done = ask("-i", "https://head.forbidden.test/")
    assert done.status == RECEIVE_ERROR
    assert "\nProxy-Status: vsockproxy; error=not_listed\n" in done.stdout.replace("\r", "")


PLAIN_REFUSALS = {
    "a host that is not listed": ("plain.forbidden.test", "not_listed"),
    "a host that has to be reached over TLS": ("plain-by-mistake.test", "not_tls"),
}


@pytest.mark.parametrize("case", PLAIN_REFUSALS)
def test_plain_http_is_refused_and_curl_shows_the_whole_text(
    sandbox: Sandbox, ask: Curl, case: str
) -> None:
    host, reason = PLAIN_REFUSALS[case]
    done = ask(f"http://{host}/")
    line = sandbox.refusal(host)
    assert line["reason"] == reason
    assert (done.status, done.stdout) == (0, f"{reason}: {host}:80: {line['text']}\n")


def test_the_text_about_plain_http_names_the_key_and_the_line(ask: Curl) -> None:
    text = ask("http://plain-by-mistake.test/").stdout
    assert "add require_tls: false at enclave.yaml:" in text


@pytest.mark.parametrize("name", ["curl", "wget", "requests", "httpx", "urllib"])
def test_plain_http_is_allowed_where_a_rule_says_so(
    sandbox: Sandbox, places: Places, name: str
) -> None:
    client = dataclasses.replace(CLIENTS[name], host="plain.test", asks=("http://{host}/",))
    done = client.fetch(sandbox, Way.HTTP_PROXY, places)
    assert (done.status, done.stdout) == (0, "hello from plain.test, over plain HTTP\n")


def test_boto3_calls_sts(sandbox: Sandbox, authority: Authority) -> None:
    done = sandbox.run(
        *(sys.executable, "-c", BOTO3_STS, "https://sts.test"),
        AWS_CA_BUNDLE=str(authority.file),
        **AWS_VARIABLES,
    )
    assert (done.status, done.stdout) == (0, f"{CALLER_ARN}\n"), done.stderr


def test_a_host_that_only_the_enclave_lists_is_refused_by_the_parent(
    sandbox: Sandbox, ask: Curl
) -> None:
    done = ask("https://enclave-only.test/")
    assert (done.status, "response 403" in done.stderr) == (RECEIVE_ERROR, True)
    line = sandbox.refusal("enclave-only.test")
    assert (line["reason"], line["side"]) == ("not_listed", "parent")


def test_a_destination_that_refuses_the_connection_is_a_bad_gateway(
    sandbox: Sandbox, ask: Curl
) -> None:
    done = ask("https://away.test/")
    assert (done.status, "502" in done.stderr) == (RECEIVE_ERROR, True)
    assert sandbox.refusal("away.test")["reason"] == "dial_refused"
