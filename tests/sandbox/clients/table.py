"""The programs that must work without being changed, and every way in that each of them supports.

Some libraries do not name the host in their error (httpx, urllib); what names it then is the line
that our side writes to the same stderr, and that the test wants of all of them.
"""

import sys
from collections.abc import Mapping

from tests.sandbox.clients.client import SOURCES, Client, Use
from tests.sandbox.sandboxes import AWS_VARIABLES, GIT_VARIABLES
from tests.sandbox.trust import TRUST_STORE_PASSWORD
from tests.sandbox.ways import HTTP_PROXY_PORT, PROXY_HOST, SOCKS5_PORT, Way
from tests.support.aws_answers import KEY_ARN
from tests.support.postgres_like import PASSWORD, USER

_SOCKS_URL = f"socks5://{PROXY_HOST}:{SOCKS5_PORT}"
_HTTPS_BY_SOCKS = {"https_proxy": f"socks5h://{PROXY_HOST}:{SOCKS5_PORT}"}
"""With an h: the proxy is given the name, not an address that the program looked up."""

_PLAIN = "hello from {host}, over plain HTTP\n"
_NOT_KNOWN = "Name or service not known"  # glibc's EAI_NONAME
_UNRESOLVED_BY_MUSL = "{host}: Name does not resolve"
_RULESET = "onnection not allowed by ruleset"  # reply 2, in RFC 1928's words

_NODE = {"NODE_EXTRA_CA_CERTS": "{authority}", "NODE_PATH": "/usr/share/nodejs"}
_HCLOUD = {
    "HCLOUD_ENDPOINT": "https://{host}",
    "HCLOUD_TOKEN": "none",
    "SSL_CERT_FILE": "{authority}",
}

_CLONE = 'git clone --quiet "$1" "$2"; cd "$2"; cat small; sha256sum large'


def _source(name: str) -> str:
    return str(SOURCES / name)


def _python(name: str) -> tuple[str, ...]:
    return sys.executable, _source(name)


def _musl(program: str) -> Client:
    return Client(
        ("{built}/" + program,),
        {Way.NAMES: Use(_UNRESOLVED_BY_MUSL)},
        needs=("musl-gcc",),
        distrusts=None,
        host="plain.test",
        asks=("{host}", "80"),
        answer=_PLAIN,
    )


def _hcloud(uses: Mapping[Way, Use], resolver: str) -> Client:
    """A program in Go, told which resolver to take: Go's own, or the C library's (package net)."""
    return Client(
        ("hcloud", "location", "list", "--output", "noheader", "--output", "columns=description"),
        uses,
        needs=("hcloud",),
        variables={**_HCLOUD, "GODEBUG": f"netdns={resolver}"},
        asks=(),
    )


CLIENTS: dict[str, Client] = {
    "curl": Client(
        ("curl", "-sS"),
        {
            Way.NAMES: Use("Could not resolve host: {host}"),
            Way.HTTP_PROXY: Use("response 403"),
            Way.SOCKS5: Use("connection to {host}. (2)", variables=_HTTPS_BY_SOCKS),
        },
        needs=("curl",),
        variables={"CURL_CA_BUNDLE": "{authority}"},
    ),
    "wget": Client(
        ("wget", "-nv", "-O", "-"),
        {
            Way.NAMES: Use("unable to resolve host address '{host}'"),
            Way.HTTP_PROXY: Use("Proxy tunneling failed: Forbidden"),
        },
        needs=("wget",),
        variables={"WGETRC": "{wgetrc}"},
    ),
    "git": Client(
        ("sh", "-ec", _CLONE, "sh"),
        {
            Way.NAMES: Use("Could not resolve host: {host}"),
            Way.HTTP_PROXY: Use("response 403"),
            Way.SOCKS5: Use("connection to {host}. (2)", variables=_HTTPS_BY_SOCKS),
        },
        needs=("git",),
        variables={**GIT_VARIABLES, "GIT_SSL_CAINFO": "{authority}"},
        asks=("https://{host}/project.git", "{scratch}/clone"),
        answer="small\n{digest}  large\n",
    ),
    "requests": Client(
        _python("with_requests.py"),
        {
            Way.NAMES: Use("Failed to resolve '{host}'"),
            Way.HTTP_PROXY: Use("403 Forbidden"),
            Way.SOCKS5: Use(_RULESET, variables=_HTTPS_BY_SOCKS, needs=("socks",)),
        },
        variables={"REQUESTS_CA_BUNDLE": "{authority}"},
    ),
    "httpx": Client(
        _python("with_httpx.py"),
        {
            Way.NAMES: Use(_NOT_KNOWN),
            Way.HTTP_PROXY: Use("403 Forbidden"),
            Way.SOCKS5: Use(_RULESET, variables=_HTTPS_BY_SOCKS, needs=("socksio",)),
        },
        variables={"SSL_CERT_FILE": "{authority}"},
    ),
    "urllib": Client(
        _python("with_urllib.py"),
        {Way.NAMES: Use(_NOT_KNOWN), Way.HTTP_PROXY: Use("403 Forbidden")},
        variables={"SSL_CERT_FILE": "{authority}"},
    ),
    "aiohttp": Client(
        (sys.executable,),
        {
            Way.NAMES: Use("Cannot connect to host {host}:443", (_source("with_aiohttp.py"),)),
            Way.HTTP_PROXY: Use("403, message='Forbidden'", (_source("with_aiohttp.py"),)),
            Way.SOCKS5: Use(
                _RULESET,
                (_source("with_aiohttp_socks.py"),),
                variables={"SOCKS_URL": _SOCKS_URL},
                needs=("aiohttp_socks",),
            ),
        },
        needs=("aiohttp",),
        variables={"SSL_CERT_FILE": "{authority}"},
    ),
    "boto3": Client(
        _python("with_boto3.py"),
        {
            Way.NAMES: Use('Could not connect to the endpoint URL: "https://{host}/"'),
            Way.HTTP_PROXY: Use("403 Forbidden"),
        },
        variables={**AWS_VARIABLES, "AWS_CA_BUNDLE": "{authority}"},
        host="kms.test",
        answer=f"secret {KEY_ARN}\n",
    ),
    "Node's fetch": Client(
        ("node", _source("with_fetch.js")),
        {Way.NAMES: Use("getaddrinfo ENOTFOUND {host}")},
        needs=("node",),
        variables=_NODE,
    ),
    "axios": Client(
        ("node", _source("with_axios.js")),
        {
            Way.NAMES: Use("getaddrinfo ENOTFOUND {host}"),
            Way.HTTP_PROXY: Use("status code 403", needs=("/usr/share/nodejs/https-proxy-agent",)),
        },
        needs=("node", "/usr/share/nodejs/axios"),
        variables=_NODE,
    ),
    "Go": _hcloud(
        {
            Way.NAMES: Use("lookup {host} on 198.18.0.1:53: no such host"),
            Way.HTTP_PROXY: Use('Get "https://{host}/locations'),
            Way.SOCKS5: Use(
                "->{host}:443: unknown error c" + _RULESET,
                variables={"HTTPS_PROXY": _SOCKS_URL},
            ),
        },
        "go",
    ),
    "Go with the C library's resolver": _hcloud(
        {Way.NAMES: Use("lookup {host}: no such host")},
        "cgo",
    ),
    "Java": Client(
        (
            *("java", "-XX:TieredStopAtLevel=1"),  # starts sooner
            "-Djavax.net.ssl.trustStore={trust_store}",
            f"-Djavax.net.ssl.trustStorePassword={TRUST_STORE_PASSWORD}",
        ),
        {
            Way.NAMES: Use("UnknownHostException: {host}"),
            Way.HTTP_PROXY: Use(
                'Proxy returns "HTTP/1.1 403 Forbidden"',
                (f"-Dhttps.proxyHost={PROXY_HOST}", f"-Dhttps.proxyPort={HTTP_PROXY_PORT}"),
            ),
            Way.SOCKS5: Use(
                _RULESET,
                (f"-DsocksProxyHost={PROXY_HOST}", f"-DsocksProxyPort={SOCKS5_PORT}"),
            ),
        },
        needs=("java",),
        distrusts="PKIX path",  # building or validation failed
        asks=(_source("Fetch.java"), "https://{host}/"),  # it compiles that itself
    ),
    "Perl": Client(
        ("perl", _source("with_http_tiny.pl")),
        {
            Way.NAMES: Use("Could not connect to '{host}:443'"),
            Way.HTTP_PROXY: Use("403 Forbidden"),
        },
        needs=("perl", "/usr/share/perl5/IO/Socket/SSL.pm"),
        variables={"SSL_CERT_FILE": "{authority}"},
    ),
    # For TLS it runs openssl; by a proxy it has none.
    "busybox": Client(
        ("busybox", "wget", "-q", "-O", "-"),
        {
            Way.NAMES: Use("bad address '{host}'"),
            Way.HTTP_PROXY: Use(
                "403 Forbidden",
                host="plain.test",
                asks=("http://{host}/",),
                answer=_PLAIN,
            ),
        },
        needs=("busybox", "openssl"),
        distrusts="error getting response",
        variables={"SSL_CERT_FILE": "{authority}"},
    ),
    "static musl": _musl("static"),
    "dynamic musl": _musl("dynamic"),
    # TLS begins after two packets without it.
    "psql": Client(
        ("psql", "--no-psqlrc", "-At", "-c", "SELECT 'hello from {host}'"),
        {Way.NAMES: Use('could not translate host name "{host}" to address')},
        needs=("psql",),
        variables={"PGPASSWORD": PASSWORD, "PGSSLROOTCERT": "{authority}"},
        host="db.test",
        asks=(f"postgresql://{USER}@{{host}}/test?sslmode=verify-full",),
        answer="hello from {host}\n",
    ),
}
