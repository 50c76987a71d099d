"""Asks `vsockproxy credentials` for the region of this instance."""

import os
from typing import Final

import trio

from vsockproxy.addresses import UnixAddress
from vsockproxy.credentials.documents import MAX_DOCUMENT_BYTES, parse_shared_region
from vsockproxy.credentials.errors import CredentialsError
from vsockproxy.credentials.locations import REGION_NAME_PATH
from vsockproxy.protocols.errors import HttpResponseError
from vsockproxy.services.http_client import ask

__all__ = ("find_region",)

PAUSE_SECONDS: Final = 0.5


def find_region(service: UnixAddress, seconds: float) -> str:
    """The region, waiting up to `seconds` for whoever knows it.

    Raises:
        CredentialsError: it was not to be had in that time.
    """
    return trio.run(_find_region, service, seconds)


async def _find_region(service: UnixAddress, seconds: float) -> str:
    trouble = "nothing was asked yet"
    with trio.move_on_after(seconds):
        while True:
            try:
                return await _ask(service)
            except CredentialsError as error:
                trouble = str(error)
            await trio.sleep(PAUSE_SECONDS)
    raise CredentialsError(f"the region is not known after {seconds:g} s: {trouble}")


async def _ask(service: UnixAddress) -> str:
    try:
        stream = await trio.open_unix_socket(service.path)
        answer = await ask(
            stream,
            "GET",
            REGION_NAME_PATH,
            host="localhost",
            max_body_bytes=MAX_DOCUMENT_BYTES,
        )
    except OSError as error:
        text = os.strerror(error.errno) if error.errno else str(error)
        raise CredentialsError(
            f"{service.path}: {text}: is vsockproxy-credentials.service running, "
            "and this user in its group?"
        ) from error
    except HttpResponseError as error:
        raise CredentialsError(f"{service.path} gave no answer in HTTP: {error.text}") from error
    if answer.status != 200:
        text = answer.body[:200].decode(errors="replace")
        raise CredentialsError(f"{service.path} answered {answer.status}: {text}")
    return parse_shared_region(answer.body)
