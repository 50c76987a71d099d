"""Both sides run without a capability, as a plain user's do: in a container, on a laptop."""

import sys
from contextlib import closing

from tests.support.pair import Pair, echo, serving
from tests.support.program import Program
from tests.support.shimmed import without_privileges


def test_a_program_under_the_shim_and_the_stream_socket() -> None:
    program = (
        "import socket\n"
        "connection = socket.create_connection(('echo.test', 7), 30)\n"
        "connection.sendall(b'over both sides')\n"
        "print(connection.recv(100).decode())\n"
    )
    with serving(echo) as port:
        rule = {"address": "echo.test", "port": 7, "private": True, "dial": f"127.0.0.1:{port}"}
        pair = Pair("unix", [rule], enclave={"require_tls": False})
        with closing(pair):
            pair.start_parent()
            enclave = [sys.executable, "-m", "vsockproxy", "enclave"]
            command = [sys.executable, "-m", "enclave_side.shim", "-c", program]
            started = [*enclave, "--config", str(pair.enclave_config), "--", *command]
            with Program(without_privileges(started)) as running:
                assert running.end() == (0, "over both sides\n")
