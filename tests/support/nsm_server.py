"""A software module on a unix socket, served by a thread, and the parts that tests make it from."""

import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import cbor2

from vsockproxy.attestation.nsm_messages import (
    MAX_RANDOM_BYTES,
    MAX_REQUEST_BYTES,
    encode_attestation,
    parse_attestation,
)
from vsockproxy.attestation.software_nsm import MODULE_ID, SoftwareNsm
from vsockproxy.attestation.software_pki import ModuleKeys, SoftwareRoot, issue_root
from vsockproxy.software_nsm_keys import make_keys


@cache
def module_root() -> SoftwareRoot:
    """One root for all tests of a process, valid since long before them."""
    return issue_root(make_keys().leaf, datetime(2025, 1, 1, tzinfo=UTC))


@cache
def module_keys() -> ModuleKeys:
    """The keys below it."""
    return make_keys()


def software_nsm(
    *, module_id: str = MODULE_ID, pcrs: Mapping[int, bytes] | None = None
) -> SoftwareNsm:
    """A module with that root."""
    return SoftwareNsm(module_root(), module_keys(), module_id=module_id, pcrs=pcrs)


def attested(
    *,
    user_data: bytes | None = None,
    nonce: bytes | None = None,
    public_key: bytes | None = None,
    at: datetime | None = None,
    pcrs: Mapping[int, bytes] | None = None,
) -> bytes:
    """A document of a new module, as of `at` or now; zeros in PCRs 0 to 2 make it one of debug."""
    request = encode_attestation(user_data, nonce, public_key)
    response = software_nsm(pcrs=pcrs).answer(
        request, at or datetime.now(UTC), bytes(MAX_RANDOM_BYTES)
    )
    return parse_attestation(response)


Respond = Callable[[bytes], bytes]


@contextmanager
def nsm_socket(path: Path, respond: Respond | None = None) -> Iterator[Path]:
    """Serve on a socket while the body runs.

    Args:
        path: where; short, as paths of sockets have to be.
        respond: gives the response to a request, and none by closing; a software module's if None.
    """
    module = software_nsm()

    def answer(request: bytes) -> bytes:
        return module.answer(request, datetime.now(UTC), secrets.token_bytes(MAX_RANDOM_BYTES))

    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(os.fspath(path))
        listener.listen(16)
        server = threading.Thread(target=_serve, args=(listener, respond or answer), daemon=True)
        server.start()
        try:
            yield path
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            server.join()


def _serve(listener: socket.socket, respond: Respond) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            while request := connection.recv(MAX_REQUEST_BYTES + 1):
                connection.send(respond(request), socket.MSG_NOSIGNAL)


def document_fields(document: bytes) -> dict[str, Any]:
    """What a document says, read without any check."""
    content: dict[str, Any] = cbor2.loads(cbor2.loads(document)[2])
    return content
