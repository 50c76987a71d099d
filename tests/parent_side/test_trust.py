"""What the parent believes of a document for a link."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from parent_side.trust import Trust
from tests.support.nsm_server import attested, module_root
from vsockproxy.attestation.documents import AWS_ROOT
from vsockproxy.attestation.software_nsm import MODULE_ID, SOFTWARE_PCRS
from vsockproxy.config.model import ParentAttestation
from vsockproxy.errors import Refused
from vsockproxy.session.attesting import session_user_data
from vsockproxy.trusted_roots import RootsNotUsable

NONCE = b"n" * 32
NOW = datetime(2026, 1, 1, tzinfo=UTC)
INSTANCE = MODULE_ID.partition("-enc")[0]
ROOT = module_root().certificate.public_bytes(Encoding.DER)


def trust(**changes: object) -> Trust:
    usual: dict[str, object] = {
        "roots": (ROOT,),
        "allow_debug": False,
        "instance": None,
        "max_age_seconds": 300.0,
    }
    return Trust(**{**usual, **changes})  # type: ignore[arg-type]  # of many types


def shown(cid: int | None = 16, **changes: object) -> bytes:
    usual: dict[str, object] = {"nonce": NONCE, "user_data": session_user_data(cid), "at": NOW}
    return attested(**{**usual, **changes})  # type: ignore[arg-type]  # of many types


def test_a_document_for_the_link() -> None:
    found = trust(instance=INSTANCE).verify(shown(), NONCE, 16, NOW)
    assert found.pcrs[0] == SOFTWARE_PCRS[0]
    assert (found.module_id, found.is_debug) == (MODULE_ID, False)
    assert isinstance(found.pcrs, MappingProxyType)


@pytest.mark.parametrize(
    ("document", "conditions", "reason"),
    [
        pytest.param(shown(17), {}, "user_data_mismatch", id="of another CID"),
        pytest.param(shown(None), {}, "user_data_mismatch", id="of a link that is no vsock"),
        pytest.param(shown(nonce=b"m" * 32), {}, "nonce_mismatch", id="of another link"),
        pytest.param(shown(user_data=None), {}, "user_data_mismatch", id="of another purpose"),
        pytest.param(shown(), {"roots": (AWS_ROOT,)}, "untrusted_root", id="of another root"),
        pytest.param(shown(), {"instance": "i-1"}, "other_instance", id="of another instance"),
        pytest.param(shown(at=NOW - timedelta(hours=4)), {}, "expired", id="expired"),
        pytest.param(shown(at=NOW - timedelta(minutes=6)), {}, "too_old", id="old"),
        pytest.param(shown(pcrs=dict.fromkeys(range(3), bytes(48))), {}, "debug_mode", id="debug"),
        pytest.param(b"", {}, "truncated", id="nothing"),
    ],
)
def test_a_document_that_is_not_believed(
    document: bytes, conditions: dict[str, object], reason: str
) -> None:
    with pytest.raises(Refused) as caught:
        trust(**conditions).verify(document, NONCE, 16, NOW)
    assert caught.value.reason == reason


def test_conditions_come_from_the_file(tmp_path: Path) -> None:
    tag = tmp_path / "board_asset_tag"
    read = Trust.read(ParentAttestation(), instance_file=tag)
    assert read == trust(roots=(AWS_ROOT,))
    tag.write_text("i-0123456789abcdef0\n", encoding="ascii")
    assert Trust.read(ParentAttestation(), instance_file=tag).instance == "i-0123456789abcdef0"
    settings = ParentAttestation(instance="i-1", allow_debug=True, max_age=5.0)
    read = Trust.read(settings, instance_file=tag)
    assert read == trust(roots=(AWS_ROOT,), instance="i-1", allow_debug=True, max_age_seconds=5.0)
    tag.write_text("Default string\n", encoding="ascii")
    assert Trust.read(ParentAttestation(), instance_file=tag).instance is None


def test_roots_come_from_a_pem_file(tmp_path: Path) -> None:
    file = tmp_path / "root.pem"
    file.write_bytes(module_root().certificate.public_bytes(Encoding.PEM))
    assert Trust.read(ParentAttestation(root=str(file))).roots == (ROOT,)
    file.write_bytes(b"no certificate")
    with pytest.raises(RootsNotUsable, match=r"root\.pem: "):
        Trust.read(ParentAttestation(root=str(file)))
    with pytest.raises(RootsNotUsable, match="cannot be read: No such file or directory"):
        Trust.read(ParentAttestation(root=str(tmp_path / "absent.pem")))
