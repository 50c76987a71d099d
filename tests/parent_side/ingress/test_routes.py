"""Which service a connection is for."""

import json
from typing import Any

import pytest

from parent_side.ingress.routes import Routes, Target, routes_of
from vsockproxy.config.load import parse
from vsockproxy.errors import Refused
from vsockproxy.protocols.client_hello import ClientHello


def routes(**listener: Any) -> Routes:
    content = {
        "listen": "vsock://any:5000",
        "enclaves": [{"cid": 20, "name": "pool"}, {"cid": 21, "name": "pool"}, {"cid": 22}],
        "ingress": [{"listen": "tcp://127.0.0.1:1", **listener}],
    }
    return routes_of(parse(json.dumps(content).encode(), "parent.yaml", "parent"), 0)


ROUTES = [
    {"sni": "*.example", "service": "wide"},
    {"sni": "app.example", "service": "exact"},
    {"sni": "**.example", "service": "widest"},
    {"sni": "*.app.example", "service": "narrow"},
]

NAMES: dict[str, tuple[str | None, str]] = {
    "an exact name": ("app.example", "exact"),
    "in capitals, with a dot": ("APP.Example.", "exact"),
    "one label": ("other.example", "wide"),
    "one label of a longer name": ("a.app.example", "narrow"),
    "two labels": ("a.b.example", "widest"),
    "the bare name of a wildcard": ("example", "default"),
    "another name": ("example.com", "default"),
    "an address": ("192.0.2.1", "default"),
    "what cannot be a name": ("-", "default"),
    "no name": (None, "default"),
}


@pytest.mark.parametrize("case", NAMES)
def test_a_server_name(case: str) -> None:
    name, service = NAMES[case]
    found = routes(service="default", routes=ROUTES).find(ClientHello(name))
    assert found.service == service


def test_what_is_no_tls_goes_to_the_default() -> None:
    assert routes(service="default", routes=ROUTES).find(None).service == "default"


def test_a_listener_without_routes_reads_nothing() -> None:
    assert not routes(service="web").need_server_name
    assert routes(routes=ROUTES).need_server_name


@pytest.mark.parametrize(
    ("hello", "text"),
    [
        pytest.param(ClientHello("example.com"), "no route for example.com", id="another name"),
        pytest.param(ClientHello(None), "names no server", id="no name"),
        pytest.param(None, "names no server", id="no TLS"),
    ],
)
def test_no_route_and_no_default(hello: ClientHello | None, text: str) -> None:
    with pytest.raises(Refused, match=text) as caught:
        routes(routes=ROUTES).find(hello)
    assert caught.value.reason == "not_listed"


def test_who_may_give_a_service() -> None:
    found = routes(
        service="web",
        name="pool",
        routes=[
            {"sni": "a.example", "service": "a", "cid": 22},
            {"sni": "b.example", "service": "b"},
        ],
    )
    source = "parent.yaml:1"
    assert found.default == Target("web", None, source, "pool")
    assert found.find(ClientHello("a.example")) == Target("a", frozenset({22}), source)
    assert found.find(ClientHello("b.example")) == Target("b", None, source)
