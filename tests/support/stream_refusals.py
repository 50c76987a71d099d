"""A stream that is asked for on the stream socket, and refused, down to the last descriptor."""

from contextlib import closing

import pytest

from tests.support.pair import is_reset
from vsockproxy.client.errors import OpeningCut, StreamRefused
from vsockproxy.client.opening import Opening

SECONDS = 60.0


def refusal(path: str, host: str, port: int = 443) -> StreamRefused:
    """Ask, be refused, and wait until the worker has nothing left of it."""
    with closing(Opening.begin(host, port, path=path, timeout=SECONDS)) as opening:
        with pytest.raises(StreamRefused) as caught:
            opening.wait(SECONDS)
        assert opening.socket is not None
        assert is_reset(opening.socket)
        opening.setblocking(True)
        with pytest.raises(OpeningCut):
            opening.receive()
    return caught.value
