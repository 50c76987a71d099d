"""Asks the parent's admin endpoint."""

import http.client
import json
import socket
from collections.abc import Callable
from typing import Any, Final

import click

from vsockproxy.addresses import AddressError, TcpAddress, UnixAddress, parse_endpoint
from vsockproxy.errors import VsockproxyError

__all__ = ("AdminError", "admin_option", "ask")

DEFAULT_ADMIN: Final = "unix:///run/vsockproxy/admin.sock"

ANSWER_SECONDS: Final = 5.0
MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024


class AdminError(VsockproxyError):
    """The endpoint cannot be asked; the text says why, and what to do."""


class _UnixConnection(http.client.HTTPConnection):
    """HTTP on a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=ANSWER_SECONDS)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(ANSWER_SECONDS)
        self.sock.connect(self._path)


def ask(endpoint: str, target: str) -> dict[str, Any]:
    """The JSON that the endpoint answers.

    Args:
        endpoint: as `admin.listen` has it.
        target: a path, and perhaps a query.

    Raises:
        AdminError: there is no such answer.
    """
    try:
        address = parse_endpoint(endpoint)
    except AddressError as error:
        raise AdminError(f"{endpoint}: {error}") from None
    connection: http.client.HTTPConnection
    match address:
        case UnixAddress():
            connection = _UnixConnection(address.path)
        case TcpAddress():
            connection = http.client.HTTPConnection(
                address.host, address.port, timeout=ANSWER_SECONDS
            )
        case _:
            raise AdminError(f"{endpoint}: write unix:///PATH or tcp://127.0.0.1:PORT")
    try:
        connection.request("GET", target)
        answer = connection.getresponse()
        body = answer.read(MAX_ANSWER_BYTES)
    except (FileNotFoundError, ConnectionRefusedError):
        raise AdminError(
            f"nobody listens on {endpoint}: start vsockproxy parent with that as admin.listen, or "
            "say with --admin where it is"
        ) from None
    except PermissionError:
        raise AdminError(
            f"not permitted to open {endpoint}: use sudo, or write ?mode=0660 behind admin.listen "
            "and join the group of the service"
        ) from None
    except TimeoutError:
        raise AdminError(f"{endpoint} did not answer for {ANSWER_SECONDS:g} s") from None
    except (OSError, http.client.HTTPException) as error:
        raise AdminError(f"{endpoint}: {error}") from None
    finally:
        connection.close()
    if answer.status != http.client.OK:
        text = body[:200].decode(errors="replace").strip()
        raise AdminError(f"{endpoint} said {answer.status}: {text}")
    try:
        content = json.loads(body)
    except ValueError:
        raise AdminError(f"{endpoint} gave no JSON: is that the admin endpoint?") from None
    if not isinstance(content, dict):
        raise AdminError(f"{endpoint} gave other JSON: is that the admin endpoint?")
    return content


def admin_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the option that names the parent's admin endpoint."""
    return click.option(
        "--admin",
        "endpoint",
        metavar="ENDPOINT",
        default=DEFAULT_ADMIN,
        show_default=True,
        help="The parent's admin.listen. Example: --admin tcp://127.0.0.1:9110",
    )(command)
