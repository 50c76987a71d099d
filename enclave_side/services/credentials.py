"""The enclave's process for credentials: SDKs of the command ask it, and it asks the parent.

It reaches the parent over the stream socket, as every program does, but with the name of a service,
which only our own user may open. What the parent says is checked like all that comes from there.
"""

import socket
from collections.abc import Callable
from typing import Final

import trio

from vsockproxy.client.for_trio import open_service
from vsockproxy.client.opening import (
    FIRST_RETRY_SECONDS,
    MOST_RETRY_SECONDS,
    try_to_connect,
)
from vsockproxy.config.model import EnclaveConfig
from vsockproxy.control.service_process import ServiceProcess, run_service
from vsockproxy.credentials.documents import (
    MAX_DOCUMENT_BYTES,
    Credentials,
    parse_shared_credentials,
    parse_shared_region,
)
from vsockproxy.credentials.endpoints import Holding, MetadataEndpoint, answer_container
from vsockproxy.credentials.errors import CredentialsError
from vsockproxy.credentials.locations import CREDENTIALS_PATH, REGION_NAME_PATH, SERVICE
from vsockproxy.errors import VsockproxyError
from vsockproxy.processes import forbid_tracing
from vsockproxy.protocols.http_service import ServiceAnswer, ServiceRequest
from vsockproxy.services.credentials_keeper import CredentialsKeeper
from vsockproxy.services.http_client import ask
from vsockproxy.services.http_server import Answering, serve_http
from vsockproxy.worker_messages import RegionKnown

__all__ = ("main",)

WAIT_SECONDS: Final = 0.8
"""How long a request waits for credentials that are on their way: SDKs wait for 1 or 2 s."""

MOST_ERROR_CHARACTERS: Final = 300

_Answer = Callable[[ServiceRequest, Holding, float], ServiceAnswer]
"""Answers a request with what there is at a time."""


class ParentCredentials:
    """The parent's service for credentials.

    Args:
        streams: the path of the stream socket.
    """

    def __init__(self, streams: str) -> None:
        self._streams = streams

    async def fetch_credentials(self) -> Credentials:
        """The latest credentials.

        Raises:
            CredentialsError: the parent gives none.
        """
        return parse_shared_credentials(await self._get(CREDENTIALS_PATH))

    async def fetch_region(self) -> str:
        """The region.

        Raises:
            CredentialsError: the parent does not say.
        """
        return parse_shared_region(await self._get(REGION_NAME_PATH))

    async def _get(self, target: str) -> bytes:
        try:
            stream = await open_service(await self._connect(), SERVICE)
            answer = await ask(
                stream, "GET", target, host="localhost", max_body_bytes=MAX_DOCUMENT_BYTES
            )
        except (VsockproxyError, OSError) as error:
            raise CredentialsError(f"the parent gives no credentials: {error}") from error
        if answer.status != 200:
            said = answer.body[:MOST_ERROR_CHARACTERS].decode(errors="replace")
            raise CredentialsError(f"the parent answered {answer.status}: {said}")
        return answer.body

    async def _connect(self) -> socket.socket:
        pause_seconds = FIRST_RETRY_SECONDS
        while True:
            try:
                return try_to_connect(self._streams)
            except BlockingIOError:  # its backlog is full
                await trio.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, MOST_RETRY_SECONDS)


async def _serve(process: ServiceProcess) -> None:
    config = process.document.config
    assert isinstance(config, EnclaveConfig)  # the supervisor loaded an enclave's file
    credentials, streams = config.credentials, config.shim.streams
    assert credentials is not None  # or nobody would have started us
    assert streams is not None  # a rule of the configuration
    parent = ParentCredentials(streams)
    keeper = CredentialsKeeper(
        parent.fetch_credentials,
        parent.fetch_region if credentials.region is None else None,
        process.log,
        region=credentials.region,
    )
    secret = process.configure.secret
    answers: dict[str, _Answer] = {
        "credentials": lambda request, holding, now: answer_container(
            request, secret.decode("ascii"), holding, now
        ),
        # Programs keep the tokens of the process before this one, so the key has to be the same.
        "imds": MetadataEndpoint(secret).answer,
    }
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.run)
        nursery.start_soon(_tell_region, keeper, process)
        for summary, listener in process.listeners:
            answering = _waiting(keeper, answers[summary.kind])
            nursery.start_soon(serve_http, listener, answering, process.log)


def _waiting(keeper: CredentialsKeeper, answer: _Answer) -> Answering:
    """Have a request wait for credentials, for a moment, where there are none."""

    async def answering(request: ServiceRequest) -> ServiceAnswer:
        answered = answer(request, keeper.holding, keeper.now)
        with trio.move_on_after(WAIT_SECONDS):
            while answered.status == 503:
                keeper.hurry()
                await keeper.changed.wait()
                answered = answer(request, keeper.holding, keeper.now)
        return answered

    return answering


async def _tell_region(keeper: CredentialsKeeper, process: ServiceProcess) -> None:
    """Tell the supervisor the region as soon as it is known, for the command's environment."""
    while (region := keeper.holding.region) is None:
        await keeper.changed.wait()
    process.say(RegionKnown(region))


def main() -> None:
    """Run as a process of services of the enclave."""
    forbid_tracing()
    run_service("enclave", _serve)


if __name__ == "__main__":
    main()
