"""Programs that are told of the SOCKS 5 proxy, and know of no other."""

import filecmp
import importlib.util
import json
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox.sandboxes import GIT_VARIABLES, Done, Sandbox, need, open_sandbox
from tests.support.tls_origin import Origin, body_of, digest_of

PROXY = "127.0.0.1:1080"
URL = f"socks5h://{PROXY}"
"""With an h: the proxy is given the name, not an address that the program looked up."""

PYTHON = (sys.executable, "-c")
GREETING = "hello from origin.test, over TLSv1.3\n"
UPLOADED = "0123456789abcdef" * 20_000
LARGE_BYTES = 8_000_000
LITERAL_V6 = "fd00::5"
NO_TLS = {"require_tls": False}

CURL_PROXY_ERROR = 97
"""CURLE_PROXY: a reply of the SOCKS proxy other than success."""
CURL_RECEIVE_ERROR = 56

REQUESTS = f"""
import requests, sys
print(requests.get(sys.argv[1], proxies={{"https": "{URL}"}}).text, end="")
"""
HTTPX = f"""
import httpx, sys
print(httpx.Client(proxy="{URL}").get(sys.argv[1]).text, end="")
"""


@pytest.fixture(scope="module")
def sandbox(
    namespaces: None, origin: Origin, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sandbox]:
    del namespaces
    directory = tmp_path_factory.mktemp("sandbox")
    with ExitStack() as stack:
        plain = stack.enter_context(Origin())
        closed = stack.enter_context(socket.socket())
        closed.bind(("127.0.0.1", 0))  # and it does not listen
        listed: list[tuple[str, int, str, dict[str, Any]]] = [
            ("origin.test", 443, origin.address, {}),
            ("plain.test", 80, plain.address, NO_TLS),
            (LITERAL_V6, 80, plain.address, NO_TLS | {"private": True}),
            ("plain-by-mistake.test", 80, plain.address, {}),
            ("away.test", 443, f"127.0.0.1:{closed.getsockname()[1]}", {}),
        ]
        configs = {
            "parent": {
                "listen": "vsock://any:5000",
                "allowlist": [
                    {"address": host, "port": port, "private": True, "dial": dial}
                    for host, port, dial, _ in listed
                ],
            },
            "enclave": {
                "parent": "vsock://3:5000",
                "allowlist": [
                    *({"address": host, "port": port, **more} for host, port, _, more in listed),
                    {"address": "enclave-only.test", "port": 443},
                ],
                "shim": {"http_proxy": None, "socks5": PROXY},
            },
        }
        options = []
        for side, config in configs.items():
            file = directory / f"{side}.yaml"
            file.write_text(json.dumps(config, indent=1))  # JSON is YAML
            options += [f"--config-{side}", str(file)]
        yield stack.enter_context(open_sandbox(*options, directory=directory))


@dataclass(frozen=True, slots=True)
class Client:
    """A program that fetches a URL, its last argument.

    Args:
        command: up to the URL.
        trust: the variable by which it is told whom to trust.
        shows: what it says of a reply that does not allow.
        package: what a Python client needs beside itself: the module, and what brings it.
    """

    command: tuple[str, ...]
    trust: str
    shows: str
    package: tuple[str, str] | None = None

    def fetch(self, sandbox: Sandbox, trust: Mapping[str, str], url: str) -> Done:
        """Run it in the sandbox."""
        if self.package is None:
            need(self.command[0])
        elif importlib.util.find_spec(self.package[0]) is None:
            pytest.skip(f"{self.package[0]} is missing: pip install '{self.package[1]}'")
        variables = {self.trust: trust[self.trust], **GIT_VARIABLES}
        return sandbox.run(*self.command, url, **variables)


CURL_COMMAND = ("curl", "-sS", "--socks5-hostname", PROXY)
GIT_COMMAND = ("git", "-c", f"http.proxy={URL}")
CLIENTS = {
    "curl": Client(CURL_COMMAND, "CURL_CA_BUNDLE", "connection to {host}. (2)"),
    "git": Client((*GIT_COMMAND, "ls-remote"), "GIT_SSL_CAINFO", "connection to {host}. (2)"),
    "requests": Client(
        (*PYTHON, REQUESTS),
        "REQUESTS_CA_BUNDLE",
        "0x02: Connection not allowed by ruleset",
        ("socks", "requests[socks]"),
    ),
    "httpx": Client(
        (*PYTHON, HTTPX),
        "SSL_CERT_FILE",
        "Connection not allowed by ruleset",
        ("socksio", "httpx[socks]"),
    ),
}


@pytest.mark.parametrize("name", ["curl", "requests", "httpx"])
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
    assert CLIENTS[name].shows.format(host=host) in done.stderr
    line = sandbox.refusal(host)
    assert (line["reason"], line["side"], line["way"]) == ("not_listed", "enclave", "socks5")


def test_git_clones_over_https(
    sandbox: Sandbox, trust: Mapping[str, str], project: Path, tmp_path: Path
) -> None:
    target = tmp_path / "clone"
    done = sandbox.run(
        *(*GIT_COMMAND, "clone", "--quiet", "https://origin.test/project.git", str(target)),
        GIT_SSL_CAINFO=trust["GIT_SSL_CAINFO"],
        **GIT_VARIABLES,
    )
    assert (done.status, done.stdout, done.stderr) == (0, "", "")
    assert filecmp.cmpfiles(project, target, ["small", "large"], shallow=False)[0] == [
        "small",
        "large",
    ]


def curl(sandbox: Sandbox, trust: Mapping[str, str], *arguments: str, typed: str = "") -> Done:
    need("curl")
    return sandbox.run(
        *CURL_COMMAND, *arguments, typed=typed, CURL_CA_BUNDLE=trust["CURL_CA_BUNDLE"]
    )


def test_curl_uploads(sandbox: Sandbox, trust: Mapping[str, str]) -> None:
    url = "https://origin.test/digest"
    done = curl(sandbox, trust, "--data-binary", "@-", url, typed=UPLOADED)
    assert (done.status, done.stdout) == (0, digest_of(UPLOADED.encode())), done.stderr


def test_curl_downloads(sandbox: Sandbox, trust: Mapping[str, str], tmp_path: Path) -> None:
    file = tmp_path / "file"
    done = curl(sandbox, trust, "-o", str(file), f"https://origin.test/chunked/{LARGE_BYTES}")
    assert (done.status, done.stderr) == (0, "")
    assert file.read_bytes() == body_of(LARGE_BYTES)


def test_a_user_name_and_a_password_in_the_url_do_no_harm(
    sandbox: Sandbox, trust: Mapping[str, str]
) -> None:
    done = curl(sandbox, trust, "--proxy-user", "user:password", "https://origin.test/")
    assert (done.status, done.stdout) == (0, GREETING), done.stderr


def test_socks_4_is_turned_away(sandbox: Sandbox, trust: Mapping[str, str]) -> None:
    need("curl")
    done = sandbox.run(
        *("curl", "-sS", "--socks4a", PROXY, "https://origin.test/"),
        CURL_CA_BUNDLE=trust["CURL_CA_BUNDLE"],
    )
    assert done.status == CURL_PROXY_ERROR
    assert "connection to proxy closed" in done.stderr


@pytest.mark.parametrize("host", ["plain.test", f"[{LITERAL_V6}]"])
def test_plain_http_is_allowed_where_a_rule_says_so(
    sandbox: Sandbox, trust: Mapping[str, str], host: str
) -> None:
    done = curl(sandbox, trust, f"http://{host}/bytes/7")
    assert (done.status, done.stdout) == (0, body_of(7).decode()), done.stderr


def test_plain_http_elsewhere_is_reset_and_the_log_says_what_to_change(
    sandbox: Sandbox, trust: Mapping[str, str]
) -> None:
    done = curl(sandbox, trust, "http://plain-by-mistake.test/")
    assert (done.status, done.stdout) == (CURL_RECEIVE_ERROR, "")
    assert "Connection reset by peer" in done.stderr
    line = sandbox.refusal("plain-by-mistake.test")
    assert (line["reason"], line["way"]) == ("not_tls", "socks5")
    assert "add require_tls: false at enclave.yaml:" in line["text"]


REFUSALS = {
    "a host that only the enclave lists": ("enclave-only.test", "not_listed", 2),
    "a destination that refuses the connection": ("away.test", "dial_refused", 5),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_curl_shows_what_the_parent_said(
    sandbox: Sandbox, trust: Mapping[str, str], case: str
) -> None:
    host, reason, reply = REFUSALS[case]
    done = curl(sandbox, trust, f"https://{host}/")
    assert done.status == CURL_PROXY_ERROR
    assert f"connection to {host}. ({reply})" in done.stderr
    line = sandbox.refusal(host)
    assert (line["reason"], line["side"]) == (reason, "parent")
