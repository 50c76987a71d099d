"""Asks the instance metadata service (IMDSv2) for the role's credentials and the region."""

import os
from typing import Final

import trio

from vsockproxy.addresses import TcpAddress
from vsockproxy.credentials.documents import (
    MAX_DOCUMENT_BYTES,
    Credentials,
    parse_metadata_document,
    parse_role,
)
from vsockproxy.credentials.errors import CredentialsError
from vsockproxy.credentials.metadata_client import (
    REGION_PATH,
    ROLES_PATH,
    TOKEN_QUESTION,
    Question,
    Tokens,
    read_body,
    read_token,
    role_path,
)
from vsockproxy.credentials.regions import parse_region
from vsockproxy.protocols.errors import HttpResponseError
from vsockproxy.protocols.http_service import ServiceAnswer
from vsockproxy.services.http_client import ask

__all__ = ("METADATA_ADDRESS", "InstanceMetadata")

METADATA_ADDRESS: Final = TcpAddress("169.254.169.254", 80)

ANSWER_SECONDS: Final = 4.0
"""Time for one answer. The service gives up its answer to a token's request after a hop too many;
nothing comes then."""

_SILENT: Final = (
    "gave no answer in {seconds:g} s; in a container its answers take one hop more: "
    "aws ec2 modify-instance-metadata-options --http-put-response-hop-limit 2"
)


class InstanceMetadata:
    """The instance metadata service.

    Args:
        address: where it is.
    """

    def __init__(self, address: TcpAddress = METADATA_ADDRESS) -> None:
        self._address = address
        self._tokens = Tokens()

    async def fetch_credentials(self) -> Credentials:
        """The credentials of the role that the instance has now.

        Raises:
            CredentialsError: there are none.
        """
        role = parse_role(await self._get(ROLES_PATH))
        return parse_metadata_document(role, await self._get(role_path(role)))

    async def fetch_region(self) -> str:
        """The region of the instance.

        Raises:
            CredentialsError: the service does not say.
        """
        body = await self._get(REGION_PATH)
        return parse_region(body.decode("latin-1").strip())

    async def _get(self, path: str) -> bytes:
        # A token may have ended since it was given: then one new one is fetched, and no third.
        for _ in range(2):
            question = self._tokens.ask(path, trio.current_time())
            if question is None:
                answer = await self._ask(TOKEN_QUESTION)
                self._tokens.keep(read_token(answer.status, answer.body), trio.current_time())
                question = self._tokens.ask(path, trio.current_time())
                assert question is not None  # it was given a moment ago
            answer = await self._ask(question)
            body = read_body(path, answer.status, answer.body)
            if body is not None:
                return body
            self._tokens.drop()
        raise CredentialsError("the metadata service does not take its own new token (401)")

    async def _ask(self, question: Question) -> ServiceAnswer:
        name = f"the metadata service at {self._address}"
        with trio.move_on_after(ANSWER_SECONDS):
            try:
                stream = await trio.open_tcp_stream(self._address.host, self._address.port)
                return await ask(
                    stream,
                    question.method,
                    question.path,
                    host=self._address.host,
                    headers=question.headers,
                    max_body_bytes=MAX_DOCUMENT_BYTES,
                )
            except OSError as error:
                text = os.strerror(error.errno) if error.errno else str(error)
                raise CredentialsError(f"{name} cannot be reached: {text}") from error
            except HttpResponseError as error:
                raise CredentialsError(f"{name} gave no answer in HTTP: {error.text}") from error
        raise CredentialsError(f"{name} {_SILENT.format(seconds=ANSWER_SECONDS)}")
