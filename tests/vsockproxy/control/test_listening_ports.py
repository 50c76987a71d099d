import os
import socket

from vsockproxy.control.listening_ports import has_listener, listens_in

TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0
   1: 0100007F:1F90 0100007F:0050 01 00000000:00000000 00:00000000 00000000     0        0 1 1 0
"""


def test_a_listener_is_told_from_a_connection() -> None:
    assert has_listener(TABLE, 5432)
    assert not has_listener(TABLE, 8080)
    assert not has_listener(TABLE, 80)


def test_a_listener_of_this_process_is_seen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert listens_in(os.getpid(), port)
    assert not listens_in(os.getpid(), port)


def test_an_ipv6_listener_is_seen() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        assert listens_in(os.getpid(), listener.getsockname()[1])


def test_a_process_that_is_not_there_listens_on_nothing() -> None:
    assert not listens_in(2**22 + 1, 80)
