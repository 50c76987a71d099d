"""The software module in an enclave's services: what outlives them, and who may ask."""

import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.nsm_server import document_fields
from tests.support.observation import kill
from tests.support.pair import Pair, Side
from vsockproxy.attestation.documents import Requirements, verify_document
from vsockproxy.attestation.software_nsm import SOFTWARE_PCRS
from vsockproxy.attestation.software_pki import read_root
from vsockproxy.nsm_device import Nsm

SOFTWARE = {"attestation": {"device": "software"}}


@pytest.fixture
def pair() -> Iterator[Pair]:
    with Pair("unix", [], enclave=SOFTWARE) as pair:
        yield pair


def services_of(side: Side) -> list[int]:
    """The processes of the enclave's own services."""
    return [
        pid
        for pid in side.workers
        if b"enclave_side.services" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def module_of(pair: Pair) -> Nsm:
    """The module, beside the stream socket."""
    return Nsm(str(pair.streams.with_name("nsm.sock")))


def fresh(document: bytes, nonce: bytes) -> dict[str, Any]:
    fields = document_fields(document)
    assert fields["nonce"] == nonce
    return fields


def test_it_says_loudly_what_it_is_and_any_user_may_ask(pair: Pair) -> None:
    assert pair.enclave is not None
    line = pair.enclave.wait_for_event("software_nsm")
    assert line["level"] == "warning"
    assert "prove nothing" in line["text"]
    nsm = module_of(pair)
    assert stat.S_IMODE(Path(nsm.location).stat().st_mode) == 0o666
    assert nsm.is_software
    assert nsm.describe_pcr(0).value == SOFTWARE_PCRS[0]


def test_root_and_registers_outlive_a_killed_process(pair: Pair) -> None:
    assert pair.enclave is not None
    nsm = module_of(pair)
    value = nsm.extend_pcr(16, b"abc")
    nsm.lock_pcr(16)
    extended = nsm.extend_pcr(17, b"abc")
    before = fresh(nsm.attest(nonce=b"before"), b"before")
    for number in (1, 2):
        (pid,) = services_of(pair.enclave)
        kill(pid)
        pair.enclave.wait_for_count("service_died", number)
        pair.enclave.wait_for_count("software_nsm", 1 + number)
    after = fresh(nsm.attest(nonce=b"after"), b"after")
    assert after["cabundle"][0] == before["cabundle"][0]
    assert after["cabundle"][1] != before["cabundle"][1]
    assert after["pcrs"] == before["pcrs"]
    assert after["pcrs"][16] == value
    assert nsm.describe_pcr(17).value == extended


def test_the_socket_goes_with_the_enclave(pair: Pair) -> None:
    assert pair.enclave is not None
    path = Path(module_of(pair).location)
    assert path.exists()
    assert pair.enclave.stop() == 0
    assert not path.exists()


def test_documents_lead_to_the_root_of_the_file(tmp_path: Path) -> None:
    root = tmp_path / "root.pem"
    keys = {"attestation": {"device": "software", "root": str(root)}}
    with Pair("unix", [], enclave=keys) as pair:
        document = module_of(pair).attest(user_data=b"abc")
    trusted = read_root(root.read_bytes()).der
    verified = verify_document(
        document, Requirements(roots=(trusted,), user_data=b"abc"), datetime.now(UTC)
    )
    assert verified.pcrs[0] == SOFTWARE_PCRS[0]
    assert not verified.is_debug


def test_a_root_that_cannot_be_made_is_said_and_nothing_starts(tmp_path: Path) -> None:
    keys = {"attestation": {"device": "software", "root": str(tmp_path / "none" / "root.pem")}}
    pair = Pair("unix", [], enclave=keys)
    try:
        enclave = Side("enclave", pair.enclave_config, ())
        assert enclave.process.wait(30) == 2
        pair.enclave = enclave
        enclave.kill()
        assert any("attestation.root: " in each for each in enclave.raw)
    finally:
        pair.close()
