import stat
import tempfile
from pathlib import Path

import pytest

from enclave_side.challenge_socket import challenge_address, open_challenge_socket
from vsockproxy.listening import ListenError


def test_it_is_beside_the_stream_socket_and_ours_alone() -> None:
    with tempfile.TemporaryDirectory() as folder:
        streams = f"{folder}/streams.sock"
        listener = open_challenge_socket(streams)
        try:
            path = Path(challenge_address(streams).path)
            assert path == Path(folder, "acme.sock")
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        finally:
            listener.close()


def test_a_folder_that_there_is_not_is_said() -> None:
    with pytest.raises(ListenError, match=r"^ingress\[\]\.to: acme: "):
        open_challenge_socket("/nonexistent/streams.sock")
