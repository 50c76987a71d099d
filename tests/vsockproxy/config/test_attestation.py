"""Where the module is, and what cannot be."""

import pytest

from vsockproxy.config.load import ConfigErrors, parse
from vsockproxy.config.model import Attestation, EnclaveConfig

ENCLAVE = "parent: vsock://3:5000\n"

LOCATIONS = {
    "by default": ("", "/dev/nsm"),
    "an empty section": ("attestation: {}", "/dev/nsm"),
    "another device": ("attestation: {device: /dev/nsm1}", "/dev/nsm1"),
    "software": ("attestation: {device: software}", "/run/vsockproxy/nsm.sock"),
    "beside the stream socket": (
        "attestation: {device: software}\nshim: {streams: /tmp/a/s.sock}",
        "/tmp/a/nsm.sock",
    ),
    "below the root": ("attestation: {device: software}\nshim: {streams: /s.sock}", "/nsm.sock"),
    "without a stream socket": (
        "attestation: {device: software}\nshim: {streams: null}",
        "/run/vsockproxy/nsm.sock",
    ),
}


@pytest.mark.parametrize(("text", "location"), LOCATIONS.values(), ids=LOCATIONS)
def test_where_the_module_is(text: str, location: str) -> None:
    config = parse(f"{ENCLAVE}{text}\n".encode(), "f").config
    assert isinstance(config, EnclaveConfig)
    assert config.nsm_location == location
    assert config.has_software_nsm == ("software" in text)


def test_software_is_never_chosen_by_itself() -> None:
    config = parse(ENCLAVE.encode(), "f").config
    assert isinstance(config, EnclaveConfig)
    assert config.attestation is None
    assert Attestation().device == "/dev/nsm"


LONG = "/" + "d" * 99

WRONG = {
    "another word": (
        "attestation: {device: hardware}",
        "f:2: attestation.device: 'hardware' does not fit: "
        "write the absolute path of a device, or `software`",
    ),
    "the device in place of the section": (
        "attestation: software",
        "f:2: attestation: 'software' does not fit: write attestation: {device: software}",
    ),
    "no absolute path": (
        "attestation: {root: root.pem}",
        "f:2: attestation.root: 'root.pem' does not fit: write the absolute path of a file",
    ),
    "the stream socket in its place": (
        "attestation: {device: software}\nshim: {streams: /run/nsm.sock}",
        "f:3: shim.streams: /run/nsm.sock is the software NSM's socket: write another name",
    ),
    "a directory that leaves no room": (
        f"attestation: {{device: software}}\nshim: {{streams: {LONG}/s}}",
        f"f:3: shim.streams: no room for the software NSM's socket, {LONG}/nsm.sock: "
        "write a path in a directory with a shorter name",
    ),
}


@pytest.mark.parametrize(("text", "line"), WRONG.values(), ids=WRONG)
def test_what_cannot_work_is_reported(text: str, line: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        parse(f"{ENCLAVE}{text}\n".encode(), "f")
    assert str(caught.value) == line
