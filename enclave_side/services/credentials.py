"""The enclave's credentials: SDKs of the command ask for them here, and we ask the parent.

It reaches the parent over the stream socket, as every program does, but with the name of a service,
which only our own user may open. What the parent says is checked like all that comes from there.
"""

import socket
from functools import partial
from typing import Final

import trio

from vsockproxy.client.errors import StreamRefused
from vsockproxy.client.for_trio import open_service
from vsockproxy.client.opening import (
    FIRST_RETRY_SECONDS,
    MOST_RETRY_SECONDS,
    try_to_connect,
)
from vsockproxy.config.model import EnclaveConfig
from vsockproxy.control.service_process import ServiceProcess
from vsockproxy.credentials.documents import (
    MAX_DOCUMENT_BYTES,
    Credentials,
    parse_shared_credentials,
    parse_shared_region,
)
from vsockproxy.credentials.endpoints import MetadataEndpoint, answer_container
from vsockproxy.credentials.errors import CredentialsError, CredentialsRefused
from vsockproxy.credentials.locations import CREDENTIALS_PATH, REGION_NAME_PATH, SERVICE
from vsockproxy.errors import VsockproxyError
from vsockproxy.services.credentials_keeper import Answer, CredentialsKeeper
from vsockproxy.services.http_client import ask
from vsockproxy.services.http_server import serve_http
from vsockproxy.worker_messages import MAX_TROUBLE_CHARACTERS, RegionKnown, RegionMissing

__all__ = ("ParentCredentials", "serve_credentials")

WAIT_SECONDS: Final = 0.8
"""How long a request waits for credentials that are on their way: SDKs wait for 1 or 2 s."""

MOST_ERROR_CHARACTERS: Final = 300


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
            CredentialsRefused: its file gives this enclave none.
            CredentialsError: the parent gives none.
        """
        return parse_shared_credentials(await self._get(CREDENTIALS_PATH))

    async def fetch_region(self) -> str:
        """The region.

        Raises:
            CredentialsRefused: not to this enclave.
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
            is_refusal = isinstance(error, StreamRefused) and error.reason == "not_listed"
            kind = CredentialsRefused if is_refusal else CredentialsError
            raise kind(f"the parent gives no credentials: {error}") from error
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


async def serve_credentials(process: ServiceProcess, keeper: CredentialsKeeper) -> None:
    """Serve the endpoints of `credentials`, where the file has it.

    Args:
        process: what this process was given.
        keeper: has the credentials, and is run by somebody else.
    """
    config = process.document.config
    assert isinstance(config, EnclaveConfig)  # the supervisor loaded an enclave's file
    if config.wanted_credentials is None:
        return
    secret = process.configure.secret
    answers: dict[str, Answer] = {
        "credentials": lambda request, holding, now: answer_container(
            request, secret.decode("ascii"), holding, now
        ),
        # Programs keep the tokens of the process before this one, so the key has to be the same.
        "imds": MetadataEndpoint(secret).answer,
    }
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_tell_region, keeper, process)
        for summary, listener in process.listeners:
            if summary.kind in answers:
                answering = partial(
                    keeper.answer, answer=answers[summary.kind], seconds=WAIT_SECONDS
                )
                nursery.start_soon(serve_http, listener, answering, process.log)


async def _tell_region(keeper: CredentialsKeeper, process: ServiceProcess) -> None:
    """Tell the supervisor the region as soon as it is known, for the command's environment.

    Until then, tell it what has kept us from knowing: the command waits no longer for a refusal.
    """
    told: RegionMissing | None = None
    while (region := keeper.holding.region) is None:
        trouble = keeper.region_trouble
        if trouble is not None:
            missing = RegionMissing(trouble.text[:MAX_TROUBLE_CHARACTERS], trouble.is_refusal)
            if missing != told:
                process.say(missing)
                told = missing
        await keeper.changed.wait()
    process.say(RegionKnown(region))
