"""Certificates by ACME: a real authority, its challenges over ingress, real processes."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.pair import Pair, echo, free_port, serving
from tests.support.pebble import HOST, NO_PEBBLE, PEBBLE, Pebble, pebble

pytestmark = pytest.mark.skipif(PEBBLE is None, reason=NO_PEBBLE)

NAME = "web.test"


@contextlib.contextmanager
def enclave_of(authority: Pebble, http_port: int, to: int) -> Iterator[tuple[Pair, int]]:
    """A pair whose service `web` has a certificate of the authority, and the port it listens on."""
    listen = free_port()
    acme: dict[str, Any] = {
        "directory": authority.directory,
        "contact": "mailto:ops@example.com",
        "ca": str(authority.ca),
    }
    with Pair(
        "unix",
        [{"address": HOST, "port": authority.port, "private": True}],
        parent={
            "resolver": {"hosts": {HOST: ["127.0.0.1"]}},
            "ingress": [
                {"listen": f"tcp://127.0.0.1:{listen}", "service": "web"},
                {"listen": f"tcp://127.0.0.1:{http_port}", "service": "acme"},
            ],
        },
        enclave={
            "ingress": [
                {
                    "service": "web",
                    "to": f"tcp://127.0.0.1:{to}",
                    "tls": {"certificate": {"acme": acme}, "names": [NAME]},
                },
                {"service": "acme", "to": "acme"},
            ]
        },
    ) as pair:
        yield pair, listen


def test_a_certificate_is_ordered_and_proved_over_ingress(tmp_path: Path) -> None:
    http_port = free_port()
    with (
        pebble(tmp_path, {NAME: "127.0.0.1"}, http_port) as authority,
        serving(echo) as to,
        enclave_of(authority, http_port, to) as (pair, _),
    ):
        assert pair.enclave is not None
        assert pair.enclave.wait_for_event("acme_registered")["account"].startswith("https://")
        assert pair.enclave.wait_for_event("acme_ordered", names=NAME)
        pair.enclave.wait_for_event("acme_challenge", name=NAME)
        pair.enclave.wait_for_event("decision", host="acme", way="ingress", allowed=True)
        ready = pair.enclave.wait_for_event("certificate_ready", service="web")
        assert ready["key"] == "generated"
