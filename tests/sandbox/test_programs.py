"""Programs that read the proxy variables, each with its own variable for whom to trust."""

import filecmp
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.sandbox.sandboxes import GIT_VARIABLES, Done, Sandbox, need
from tests.support.aws_answers import CALLER_ARN, KEY_ARN
from tests.support.certificates import Authority
from tests.support.tls_origin import body_of, digest_of

PYTHON = (sys.executable, "-c")
GREETING = "hello from origin.test, over TLSv1.3\n"
UPLOADED = "0123456789abcdef" * 20_000
LARGE_BYTES = 8_000_000
CURL_RECEIVE_ERROR = 56
"""CURLE_RECV_ERROR, for a CONNECT that is refused."""

AWS_VARIABLES = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "eu-west-1",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    "AWS_MAX_ATTEMPTS": "1",
}

REQUESTS = "import requests, sys; print(requests.get(sys.argv[1]).text, end='')"
HTTPX = "import httpx, sys; print(httpx.get(sys.argv[1]).text, end='')"
URLLIB = """
import sys, urllib.request
print(urllib.request.urlopen(sys.argv[1]).read().decode(), end="")
"""
BOTO3 = """
import boto3, sys
kms = boto3.client("kms", endpoint_url=sys.argv[1])
answer = kms.decrypt(CiphertextBlob=b"terces")
print(answer["Plaintext"].decode(), answer["KeyId"])
"""
BOTO3_STS = """
import boto3, sys
print(boto3.client("sts", endpoint_url=sys.argv[1]).get_caller_identity()["Arn"])
"""


@dataclass(frozen=True, slots=True)
class Client:
    """A program that fetches a URL, its last argument.

    Args:
        command: up to the URL.
        trust: the variable by which it is told whom to trust.
        shows: what it says of a CONNECT that is refused with 403.
        variables: what else it needs.
    """

    command: tuple[str, ...]
    trust: str
    shows: str
    variables: Mapping[str, str] = field(default_factory=dict)

    def fetch(self, sandbox: Sandbox, trust: Mapping[str, str], url: str) -> Done:
        """Run it in the sandbox."""
        if self.command[0] != sys.executable:
            need(self.command[0])
        return sandbox.run(*self.command, url, **{self.trust: trust[self.trust]}, **self.variables)


CLIENTS = {
    "curl": Client(("curl", "-sS"), "CURL_CA_BUNDLE", "response 403"),
    "wget": Client(("wget", "-nv", "-O", "-"), "WGETRC", "Proxy tunneling failed: Forbidden"),
    "requests": Client((*PYTHON, REQUESTS), "REQUESTS_CA_BUNDLE", "403 Forbidden"),
    "httpx": Client((*PYTHON, HTTPX), "SSL_CERT_FILE", "403 Forbidden"),
    "urllib": Client((*PYTHON, URLLIB), "SSL_CERT_FILE", "403 Forbidden"),
    "boto3": Client((*PYTHON, BOTO3), "AWS_CA_BUNDLE", "403 Forbidden", AWS_VARIABLES),
    "git": Client(("git", "ls-remote"), "GIT_SSL_CAINFO", "response 403", GIT_VARIABLES),
}
CURL = CLIENTS["curl"]


@pytest.mark.parametrize("name", ["curl", "wget", "requests", "httpx", "urllib"])
def test_a_listed_host_is_reached_over_tls(
    sandbox: Sandbox, trust: Mapping[str, str], name: str
) -> None:
    done = CLIENTS[name].fetch(sandbox, trust, "https://origin.test/")
    assert (done.status, done.stdout) == (0, GREETING), done.stderr


@pytest.mark.parametrize("name", CLIENTS)
def test_a_host_that_is_not_listed_is_refused_and_the_program_says_so(
    sandbox: Sandbox, trust: Mapping[str, str], name: str
) -> None:
    host = f"{name}.forbidden.test"
    done = CLIENTS[name].fetch(sandbox, trust, f"https://{host}/")
    assert done.status != 0
    assert CLIENTS[name].shows in done.stderr
    line = sandbox.refusal(host)
    assert (line["reason"], line["side"], line["way"]) == ("not_listed", "enclave", "http_proxy")


@pytest.mark.parametrize("name", ["curl", "requests"])
def test_a_program_verifies_the_origin_itself(sandbox: Sandbox, tmp_path: Path, name: str) -> None:
    client = CLIENTS[name]
    done = client.fetch(
        sandbox, {client.trust: str(Authority(tmp_path).file)}, "https://origin.test/"
    )
    assert done.status != 0
    assert "certificate" in done.stderr


def test_git_clones_over_https(
    sandbox: Sandbox, trust: Mapping[str, str], project: Path, tmp_path: Path
) -> None:
    need("git")
    target = tmp_path / "clone"
    done = sandbox.run(
        *("git", "clone", "--quiet", "https://origin.test/project.git", str(target)),
        GIT_SSL_CAINFO=trust["GIT_SSL_CAINFO"],
        **GIT_VARIABLES,
    )
    assert (done.status, done.stdout, done.stderr) == (0, "", "")
    assert filecmp.cmpfiles(project, target, ["small", "large"], shallow=False)[0] == [
        "small",
        "large",
    ]


def test_boto3_calls_kms(sandbox: Sandbox, trust: Mapping[str, str]) -> None:
    done = CLIENTS["boto3"].fetch(sandbox, trust, "https://kms.test")
    assert (done.status, done.stdout) == (0, f"secret {KEY_ARN}\n"), done.stderr


def test_boto3_calls_sts(sandbox: Sandbox, trust: Mapping[str, str]) -> None:
    client = Client((*PYTHON, BOTO3_STS), "AWS_CA_BUNDLE", "", AWS_VARIABLES)
    done = client.fetch(sandbox, trust, "https://sts.test")
    assert (done.status, done.stdout) == (0, f"{CALLER_ARN}\n"), done.stderr


def curl(sandbox: Sandbox, trust: Mapping[str, str], *arguments: str, typed: str = "") -> Done:
    need("curl")
    return sandbox.run(
        "curl", "-sS", *arguments, typed=typed, CURL_CA_BUNDLE=trust["CURL_CA_BUNDLE"]
    )


UPLOADS = {
    "a body of known length": ("--data-binary", "@-"),
    "a body in chunks": ("--data-binary", "@-", "-H", "Transfer-Encoding: chunked"),
    "a file of unknown length": ("-T", "-"),
}


@pytest.mark.parametrize("case", UPLOADS)
def test_curl_uploads(sandbox: Sandbox, trust: Mapping[str, str], case: str) -> None:
    url = "https://origin.test/digest"
    done = curl(sandbox, trust, *UPLOADS[case], url, typed=UPLOADED)
    assert (done.status, done.stdout) == (0, digest_of(UPLOADED.encode())), done.stderr


@pytest.mark.parametrize("form", ["bytes", "chunked"])
def test_curl_downloads(
    sandbox: Sandbox, trust: Mapping[str, str], form: str, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    done = curl(sandbox, trust, "-o", str(file), f"https://origin.test/{form}/{LARGE_BYTES}")
    assert (done.status, done.stderr) == (0, "")
    assert file.read_bytes() == body_of(LARGE_BYTES)


def test_curl_asks_for_the_head_only(sandbox: Sandbox, trust: Mapping[str, str]) -> None:
    done = curl(sandbox, trust, "-I", "https://origin.test/bytes/1234")
    assert done.status == 0
    assert "\nContent-Length: 1234\n" in done.stdout.replace("\r", "")


def test_curl_sees_which_error_a_refused_tunnel_had(
    sandbox: Sandbox, trust: Mapping[str, str]
) -> None:
    done = curl(sandbox, trust, "-i", "https://head.forbidden.test/")
    assert done.status == CURL_RECEIVE_ERROR
    assert "\nProxy-Status: vsockproxy; error=not_listed\n" in done.stdout.replace("\r", "")


PLAIN_REFUSALS = {
    "a host that is not listed": ("plain.forbidden.test", "not_listed"),
    "a host that has to be reached over TLS": ("plain-by-mistake.test", "not_tls"),
}


@pytest.mark.parametrize("case", PLAIN_REFUSALS)
def test_plain_http_is_refused_and_curl_shows_the_whole_text(
    sandbox: Sandbox, trust: Mapping[str, str], case: str
) -> None:
    host, reason = PLAIN_REFUSALS[case]
    done = curl(sandbox, trust, f"http://{host}/")
    line = sandbox.refusal(host)
    assert line["reason"] == reason
    assert (done.status, done.stdout) == (0, f"{reason}: {host}:80: {line['text']}\n")


def test_the_text_about_plain_http_names_the_key_and_the_line(
    sandbox: Sandbox, trust: Mapping[str, str]
) -> None:
    text = curl(sandbox, trust, "http://plain-by-mistake.test/").stdout
    assert "add require_tls: false at enclave.yaml:" in text


@pytest.mark.parametrize("name", ["curl", "wget", "requests", "httpx", "urllib"])
def test_plain_http_is_allowed_where_a_rule_says_so(
    sandbox: Sandbox, trust: Mapping[str, str], name: str
) -> None:
    done = CLIENTS[name].fetch(sandbox, trust, "http://plain.test/")
    assert (done.status, done.stdout) == (0, "hello from plain.test, over plain HTTP\n")


def test_a_host_that_only_the_enclave_lists_is_refused_by_the_parent(
    sandbox: Sandbox, trust: Mapping[str, str]
) -> None:
    done = CURL.fetch(sandbox, trust, "https://enclave-only.test/")
    assert (done.status, CURL.shows in done.stderr) == (CURL_RECEIVE_ERROR, True)
    line = sandbox.refusal("enclave-only.test")
    assert (line["reason"], line["side"]) == ("not_listed", "parent")


def test_a_destination_that_refuses_the_connection_is_a_bad_gateway(
    sandbox: Sandbox, trust: Mapping[str, str]
) -> None:
    done = CURL.fetch(sandbox, trust, "https://away.test/")
    assert (done.status, "502" in done.stderr) == (CURL_RECEIVE_ERROR, True)
    assert sandbox.refusal("away.test")["reason"] == "dial_refused"
