"""The coroutines of one end of a stream."""

import pytest

from tests.support.linked_streams import LinkedStreams
from tests.support.tls_scene import play
from vsockproxy.dataplane.loop import timeout


def test_bytes_of_a_write_that_was_given_up_are_not_replaced() -> None:
    data = bytes(range(250)) * 400  # more than a window

    async def main() -> None:
        streams = LinkedStreams()
        near, far = await streams.open()
        with pytest.raises(TimeoutError):
            async with timeout(0.01):
                await near.write(data)
        with pytest.raises(RuntimeError, match="bytes of an earlier one wait to be sent"):
            await near.write(b"next")
        received = b""
        while len(received) < len(data):
            received += await far.read()
        assert received == data
        await near.write(b"next")
        assert await far.read() == b"next"
        streams.close()

    play(main)
