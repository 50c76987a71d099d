"""The CID that a document names: that of the enclave's own machine."""

import socket

import pytest

from enclave_side.attester import CidUnknown, machine_cid, own_cid


def test_a_link_that_is_no_vsock_has_none() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert own_cid(one) is None


@pytest.mark.parametrize(
    ("device", "text"),
    [
        pytest.param(
            "/dev/absent", "/dev/absent does not say this machine's CID: No such", id="no"
        ),
        pytest.param(
            "/dev/null", "/dev/null does not say this machine's CID: Inappropriate", id="another"
        ),
    ],
)
def test_a_device_that_does_not_say(device: str, text: str) -> None:
    with pytest.raises(CidUnknown, match=text):
        machine_cid(device)
