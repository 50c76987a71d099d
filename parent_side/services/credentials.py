"""The parent's own process for credentials (`credentials.imds`): it asks the metadata service.

The supervisor starts it beside the workers, which connect to its socket for enclaves. It does what
`vsockproxy credentials` does, without a user of its own.
"""

from functools import partial
from typing import Final

import trio

from parent_side.services.credentials_service import keep_to_itself
from parent_side.services.instance_metadata import InstanceMetadata
from vsockproxy.config.metadata_address import parse_metadata_url
from vsockproxy.config.model import ParentConfig
from vsockproxy.control.service_process import ServiceProcess, run_service
from vsockproxy.credentials.endpoints import answer_enclave
from vsockproxy.services.credentials_keeper import CredentialsKeeper
from vsockproxy.services.http_server import serve_http

__all__ = ("main",)

WAIT_SECONDS: Final = 2.0
"""How long a request waits for what is on its way: at the start an enclave asks before we know."""


async def _serve(process: ServiceProcess) -> None:
    config = process.document.config
    assert isinstance(config, ParentConfig)  # the supervisor loaded a parent's file
    assert config.credentials is not None  # or nobody would have started us
    assert config.credentials.imds is not None  # likewise
    service = InstanceMetadata(parse_metadata_url(config.credentials.imds))
    keeper = CredentialsKeeper(service.fetch_credentials, service.fetch_region, process.log)
    answering = partial(keeper.answer, answer=answer_enclave, seconds=WAIT_SECONDS)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.run)
        for _, listener in process.listeners:
            nursery.start_soon(serve_http, listener, answering, process.log)


def main() -> None:
    """Run as a process of services of the parent."""
    keep_to_itself()
    run_service("parent", _serve)


if __name__ == "__main__":
    main()
