"""Binds the events of a link to the enclave whose link it is."""

from typing import Protocol

from parent_side.enclave import Enclave
from vsockproxy.dataplane.link import Link
from vsockproxy.dataplane.stream_end import StreamEnd
from vsockproxy.session.messages import Open, Resolve

__all__ = ("EnclaveEvents", "EnclaveLink")


class EnclaveEvents(Protocol):
    """Who serves the enclaves of a worker."""

    def stream_opened(self, enclave: Enclave, end: StreamEnd, request: Open) -> None:
        """An enclave opened a stream."""

    def resolve_received(
        self, enclave: Enclave, link: Link, request_id: int, question: Resolve
    ) -> None:
        """An enclave asks for a name."""

    def link_going_away(self, enclave: Enclave) -> None:
        """A link takes no new streams any more, and ends with those that it has."""

    def link_ended(
        self, enclave: Enclave, link: Link, code: int, text: str, is_clean: bool
    ) -> None:
        """A link is gone."""


class EnclaveLink:
    """Binds the events of a link to its enclave."""

    __slots__ = ("_enclave", "_enclaves")

    def __init__(self, enclaves: EnclaveEvents, enclave: Enclave) -> None:
        self._enclaves = enclaves
        self._enclave = enclave

    def stream_opened(self, link: Link, end: StreamEnd, request: Open) -> None:
        """The enclave opened a stream."""
        del link
        self._enclaves.stream_opened(self._enclave, end, request)

    def resolve_received(self, link: Link, request_id: int, question: Resolve) -> None:
        """The enclave asks for a name."""
        self._enclaves.resolve_received(self._enclave, link, request_id, question)

    def link_going_away(self, link: Link, text: str) -> None:
        """No more streams are opened here by either side; the link ends with its streams."""
        del link, text
        self._enclaves.link_going_away(self._enclave)

    def link_ended(self, link: Link, code: int, text: str, is_clean: bool) -> None:
        """The link is gone."""
        self._enclaves.link_ended(self._enclave, link, code, text, is_clean)
