"""Links over a listening socket that the parent was started with: systemd's, in production."""

import socket

from tests.support.exchange_pair import converse
from tests.support.observation import count, wait_until
from tests.support.pair import LinkKind, Pair, Side, echo, serving
from vsockproxy.addresses import ANY_CID, UnixAddress, VsockAddress
from vsockproxy.config.load import load
from vsockproxy.config.model import ParentConfig
from vsockproxy.listening import VSOCK_BUFFER_BYTES

HOST = "origin.test"
PORT = 443
LINKS = 4


def listening(pair: Pair) -> socket.socket:
    """A socket as systemd opens it for the pair's `listen`."""
    config = load(str(pair.parent_config)).config
    assert isinstance(config, ParentConfig)
    match config.listen[0]:
        case UnixAddress(path=path):
            sock = socket.socket(socket.AF_UNIX)
            sock.bind(path)
        case VsockAddress(cid=cid, port=port):
            assert cid == ANY_CID
            sock = socket.socket(socket.AF_VSOCK)
            sock.bind((cid, port))
        case other:
            raise AssertionError(other)
    sock.listen()
    return sock


def test_a_restart_of_the_parent_refuses_no_link(kind: LinkKind) -> None:
    with serving(echo) as port:
        rule = {"address": HOST, "port": PORT, "private": True, "require_tls": False}
        pair = Pair(kind, [rule], parent_rules=[{**rule, "dial": f"127.0.0.1:{port}"}])
        with listening(pair) as passed:
            try:
                first = pair.parent = Side("parent", pair.parent_config, passed=passed)
                first.wait_for_event("ready")
                enclave = pair.start_enclave()
                with pair.connect(HOST, PORT) as sock:
                    converse(sock)
                if kind == "vsock":
                    size = passed.getsockopt(socket.AF_VSOCK, socket.SO_VM_SOCKETS_BUFFER_SIZE)
                    assert size in (VSOCK_BUFFER_BYTES, VSOCK_BUFFER_BYTES.to_bytes(8, "little"))
                ups = count(enclave, "link_up")
                assert first.stop() == 0
                # The socket is open all the time: links wait in it for the next parent.
                first.kill()
                pair.parent = Side("parent", pair.parent_config, passed=passed)
                pair.parent.wait_for_event("ready")
                wait_until(enclave, lambda: count(enclave, "link_up") >= ups + LINKS)
                with pair.connect(HOST, PORT) as sock:
                    converse(sock)
                refused = [
                    line for line in enclave.events("link_failed") if "refused" in line["text"]
                ]
                assert refused == []
            finally:
                pair.close()
