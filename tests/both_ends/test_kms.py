"""KMS for boto3 as it is: every operation, and every way in which a KMS can be odd."""

import base64
import json
import shutil
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config  # type: ignore[import-untyped]  # it has no types
from botocore.exceptions import ClientError  # type: ignore[import-untyped]  # it has no types
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.certificates import Authority
from tests.support.kms_faults import Fault
from tests.support.kms_keys import KmsKey
from tests.support.kms_pair import HOST, MEASURED, REGION, KmsPair, kms_pair
from tests.support.nsm_server import attested, document_fields
from tests.support.observation import kill
from tests.support.pair import Side, free_port

CONTEXT = {"purpose": "test"}
SECRET = b"what nobody else may read"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def shared(authority: Authority) -> Iterator[KmsPair]:
    """One for many tests, each of which leaves it as it was."""
    with kms_pair(authority) as running:
        yield running


@pytest.fixture
def running(shared: KmsPair) -> Iterator[KmsPair]:
    yield shared
    shared.kms.mend()


@pytest.fixture
def client(running: KmsPair) -> Iterator[Any]:
    made = running.client()
    yield made
    made.close()


@pytest.fixture
def key(running: KmsPair) -> KmsKey:
    """A key whose policy demands the enclave's measurements."""
    return running.kms.store.create(pcrs=MEASURED)


@pytest.fixture
def ciphertext(key: KmsKey) -> bytes:
    return key.encrypt(SECRET, CONTEXT)


def error_of(call: Any, **arguments: Any) -> tuple[str, str, int]:
    """The error's type, its message and the status."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    response = caught.value.response
    error = response["Error"]
    return error["Code"], error["Message"], response["ResponseMetadata"]["HTTPStatusCode"]


# ----------------------------------------------------------------- what programs want


def test_decrypt_comes_back_in_plaintext(client: Any, key: KmsKey, ciphertext: bytes) -> None:
    for name in (key.arn, key.key_id):
        found = client.decrypt(CiphertextBlob=ciphertext, EncryptionContext=CONTEXT, KeyId=name)
        assert (found["Plaintext"], found["KeyId"]) == (SECRET, key.arn)
        assert "CiphertextForRecipient" not in found


def test_data_keys_come_back_in_plaintext(client: Any, key: KmsKey) -> None:
    made = client.generate_data_key(KeyId=key.arn, KeySpec="AES_256", EncryptionContext=CONTEXT)
    opened = client.decrypt(CiphertextBlob=made["CiphertextBlob"], EncryptionContext=CONTEXT)
    assert len(made["Plaintext"]) == 32
    assert opened["Plaintext"] == made["Plaintext"]


@pytest.mark.parametrize("spec", ["RSA_2048", "ECC_NIST_P256"])
def test_pairs_of_data_keys_come_back_in_plaintext(client: Any, key: KmsKey, spec: str) -> None:
    made = client.generate_data_key_pair(KeyId=key.arn, KeyPairSpec=spec)
    private = serialization.load_der_private_key(made["PrivateKeyPlaintext"], None)
    public = private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert public == made["PublicKey"]


def test_random_bytes_come_back_in_plaintext(client: Any) -> None:
    found = [client.generate_random(NumberOfBytes=24)["Plaintext"] for _ in range(2)]
    assert [len(each) for each in found] == [24, 24]
    assert found[0] != found[1]


def test_shared_secrets_come_back_in_plaintext(running: KmsPair, client: Any) -> None:
    agreement = running.kms.store.create(pcrs=MEASURED, curve="ECC_NIST_P256")
    own = ec.generate_private_key(ec.SECP256R1())
    found = client.derive_shared_secret(
        KeyId=agreement.arn,
        KeyAgreementAlgorithm="ECDH",
        PublicKey=own.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        ),
    )
    theirs = serialization.load_der_public_key(agreement.public_key)
    assert isinstance(theirs, ec.EllipticCurvePublicKey)
    assert found["SharedSecret"] == own.exchange(ec.ECDH(), theirs)


def test_other_operations_are_passed_with_our_signature(
    running: KmsPair, client: Any, key: KmsKey
) -> None:
    sealed = client.encrypt(KeyId=key.arn, Plaintext=SECRET, EncryptionContext=CONTEXT)
    opened = client.decrypt(CiphertextBlob=sealed["CiphertextBlob"], EncryptionContext=CONTEXT)
    assert opened["Plaintext"] == SECRET
    assert key.arn in [each["KeyArn"] for each in client.list_keys()["Keys"]]
    assert client.describe_key(KeyId=key.arn)["KeyMetadata"]["Arn"] == key.arn
    assert all(name.startswith("ASIA") for name in running.kms.count.access_keys)


def test_the_body_stays_as_it_was_but_for_the_recipient(
    running: KmsPair, client: Any, ciphertext: bytes
) -> None:
    client.decrypt(CiphertextBlob=ciphertext, EncryptionContext=CONTEXT, GrantTokens=["ä"])
    request = running.kms.requests[-1]
    fields = json.loads(request.body)
    recipient = fields.pop("Recipient")
    assert set(recipient) == {"KeyEncryptionAlgorithm", "AttestationDocument"}
    assert fields["EncryptionContext"] == CONTEXT
    assert fields["GrantTokens"] == ["ä"]
    client.list_keys(Limit=7)
    assert running.kms.requests[-1].body == b'{"Limit": 7}'


def test_every_call_has_a_fresh_document(running: KmsPair, client: Any) -> None:
    running.kms.documents.are_single_use = True
    try:
        for _ in range(5):
            client.generate_random(NumberOfBytes=1)
    finally:
        running.kms.documents.are_single_use = False


def test_a_recipient_of_the_program_s_own_is_left_alone(
    running: KmsPair, client: Any, key: KmsKey, ciphertext: bytes
) -> None:
    del key
    client.generate_random(NumberOfBytes=1)
    ours = json.loads(running.kms.requests[-1].body)["Recipient"]["AttestationDocument"]
    public_key = document_fields(base64.b64decode(ours))["public_key"]
    document = attested(public_key=public_key)
    recipient = {"KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256", "AttestationDocument": document}
    found = client.decrypt(
        CiphertextBlob=ciphertext, EncryptionContext=CONTEXT, Recipient=recipient
    )
    assert found["CiphertextForRecipient"]
    assert not found.get("Plaintext")
    sent = json.loads(running.kms.requests[-1].body)["Recipient"]["AttestationDocument"]
    assert base64.b64decode(sent) == document


def test_a_key_for_other_measurements_is_not_ours(running: KmsPair, client: Any) -> None:
    foreign = running.kms.store.create(pcrs={0: "ab" * 48})
    kind, _, status = error_of(client.decrypt, CiphertextBlob=foreign.encrypt(SECRET, {}))
    assert (kind, status) == ("AccessDeniedException", 400)


def test_each_call_has_a_line_in_the_log_without_its_secrets(
    running: KmsPair, client: Any, ciphertext: bytes
) -> None:
    enclave = running.pair.enclave
    assert enclave is not None
    client.decrypt(CiphertextBlob=ciphertext, EncryptionContext=CONTEXT)
    line = enclave.wait_for_event("kms_call", operation="Decrypt", status=200)
    assert {name: line[name] for name in line if name not in ("time", "duration")} == {
        "level": "info",
        "event": "kms_call",
        "side": "enclave",
        "operation": "Decrypt",
        "region": REGION,
        "host": HOST,
        "attested": True,
        "status": 200,
    }
    raw = "\n".join(enclave.raw)
    assert not any(each in raw for each in ("secret/", "session/", SECRET.decode(), "purpose"))


# ------------------------------------------------------------- connections to KMS


def test_one_handshake_does_for_many_calls(running: KmsPair, client: Any) -> None:
    client.generate_random(NumberOfBytes=1)
    before = running.kms.count.handshakes
    for _ in range(10):
        client.generate_random(NumberOfBytes=1)
    assert running.kms.count.handshakes == before


def test_many_callers_at_once_are_all_answered(running: KmsPair, ciphertext: bytes) -> None:
    local = threading.local()

    def call(_: int) -> bytes:
        if not hasattr(local, "client"):
            local.client = running.client()
        found = local.client.decrypt(CiphertextBlob=ciphertext, EncryptionContext=CONTEXT)
        plaintext: bytes = found["Plaintext"]
        return plaintext

    with ThreadPoolExecutor(30) as callers:
        assert list(callers.map(call, range(200))) == [SECRET] * 200
    assert running.kms.count.most_open <= 64


def test_a_kept_connection_that_has_ended_is_nobody_s_trouble(
    running: KmsPair, client: Any
) -> None:
    for fault in (Fault.CLOSED_AFTER, Fault.CLOSED_SILENTLY_AFTER):
        for _ in range(3):
            running.kms.plan(fault)
            assert len(client.generate_random(NumberOfBytes=9)["Plaintext"]) == 9


@pytest.mark.parametrize("fault", [Fault.CUT_BEFORE, Fault.RESET])
def test_a_kept_connection_that_ends_in_place_of_an_answer_is_replaced_once(
    running: KmsPair, client: Any, fault: Fault
) -> None:
    client.generate_random(NumberOfBytes=1)
    asked = running.kms.count.requests["GenerateRandom"]
    running.kms.plan(fault)
    assert len(client.generate_random(NumberOfBytes=9)["Plaintext"]) == 9
    assert running.kms.count.requests["GenerateRandom"] == asked + 2


def test_a_worker_that_dies_costs_connections_and_no_call(running: KmsPair, client: Any) -> None:
    client.generate_random(NumberOfBytes=1)
    enclave = running.pair.enclave
    assert enclave is not None
    after = len(enclave.lines)
    worker = next(pid for pid in enclave.workers if is_worker(pid))
    kill(worker)
    enclave.wait_for_event("link_up", after=after)
    assert len(client.generate_random(NumberOfBytes=9)["Plaintext"]) == 9


def is_worker(pid: int) -> bool:
    return b"enclave_side.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()


# ------------------------------------------------------------------------ what is odd

RIGHT = [
    Fault.REPEATED_ENVELOPE,
    Fault.PRIMITIVE_ENVELOPE,
    Fault.ENVELOPE_IN_PIECES,
    Fault.NULL_PLAINTEXT_BESIDE,
    Fault.EMPTY_PLAINTEXT_BESIDE,
    Fault.OTHER_CONTENT_TYPE,
    Fault.NO_CONTENT_TYPE,
    Fault.CHUNKED,
    Fault.CONTINUED,
    Fault.SLOW,
    Fault.DRIBBLING,
    Fault.CLOSED_AFTER,
    Fault.CLOSED_SILENTLY_AFTER,
]

PASSED = {
    Fault.THROTTLED: ("ThrottlingException", 400),
    Fault.INTERNAL_ERROR: ("KMSInternalException", 500),
    Fault.DEPENDENCY_TIMEOUT: ("DependencyTimeoutException", 503),
    Fault.KEY_UNAVAILABLE: ("KeyUnavailableException", 500),
    Fault.UNAVAILABLE_PAGE: ("503", 503),
    Fault.STALE_DOCUMENT: ("ValidationException", 400),
    Fault.NAMESPACED_ERROR: ("NotFoundException", 400),
}

REFUSED = {
    Fault.WRONG_KEY: "envelope",
    Fault.WRONG_IDENTIFIER: "envelope",
    Fault.OTHER_RECIPIENT: "envelope",
    Fault.REPLAYED_ENVELOPE: "envelope",
    Fault.CORRUPT_ENVELOPE: "envelope",
    Fault.TRUNCATED_ENVELOPE: "envelope",
    Fault.OVERSIZE_ENVELOPE: "no_ciphertext",
    Fault.EMPTY_ENVELOPE: "no_ciphertext",
    Fault.NULL_ENVELOPE: "no_ciphertext",
    Fault.NUMBER_FOR_ENVELOPE: "no_ciphertext",
    Fault.NO_ENVELOPE: "no_ciphertext",
    Fault.BAD_BASE64: "no_ciphertext",
    Fault.PLAINTEXT_INSTEAD: "plaintext",
    Fault.PLAINTEXT_BESIDE: "plaintext",
    Fault.WRONG_KEY_ID: "key",
    Fault.NO_KEY_ID: "key",
    Fault.NUMBER_FOR_KEY_ID: "key",
    Fault.FIELD_TWICE: "answer_body",
    Fault.BAD_JSON: "answer_body",
    Fault.NOT_AN_OBJECT: "answer_body",
    Fault.NOT_UTF8: "answer_body",
    Fault.DEEP_JSON: "answer_body",
    Fault.EMPTY_BODY: "answer_body",
    Fault.OVERSIZE_BODY: "http",
    Fault.TWO_LENGTHS: "http",
    Fault.COMPRESSED: "encoding",
    Fault.NO_CONTENT: "status",
    Fault.REDIRECTED: "status",
    Fault.NOT_HTTP: "http",
    Fault.ENDLESS_HEAD: "http",
}

CUT = [Fault.WITHOUT_LENGTH, Fault.CUT_IN_HEAD, Fault.CUT_IN_BODY]

OTHERWISE = {Fault.HELD, Fault.CUT_BEFORE, Fault.RESET}
"""What other tests are about."""


def test_every_fault_has_an_outcome() -> None:
    outcomes = [*RIGHT, *PASSED, *REFUSED, *CUT, *OTHERWISE]
    assert sorted(outcomes) == sorted(Fault)


@pytest.fixture
def works_afterwards(client: Any) -> Iterator[None]:
    yield
    assert len(client.generate_random(NumberOfBytes=9)["Plaintext"]) == 9


@pytest.mark.usefixtures("works_afterwards")
@pytest.mark.parametrize("fault", RIGHT)
def test_what_only_looks_odd_is_taken(
    running: KmsPair, client: Any, key: KmsKey, ciphertext: bytes, fault: Fault
) -> None:
    running.kms.slow_seconds = 0.2
    running.kms.plan(fault)
    found = client.decrypt(CiphertextBlob=ciphertext, EncryptionContext=CONTEXT, KeyId=key.arn)
    # An old envelope for our own key opens: nothing in one says which call it answers.
    assert found["Plaintext"] == SECRET


@pytest.mark.usefixtures("works_afterwards")
@pytest.mark.parametrize(("fault", "wanted"), PASSED.items(), ids=PASSED)
def test_errors_of_kms_are_passed_as_they_are(
    running: KmsPair, client: Any, ciphertext: bytes, fault: Fault, wanted: tuple[str, int]
) -> None:
    running.kms.plan(fault)
    asked = running.kms.count.requests["Decrypt"]
    kind, _, status = error_of(client.decrypt, CiphertextBlob=ciphertext)
    assert (kind, status) == wanted
    assert running.kms.count.requests["Decrypt"] == asked + 1  # to ask again is the SDK's to do


@pytest.mark.usefixtures("works_afterwards")
@pytest.mark.parametrize(("fault", "reason"), REFUSED.items(), ids=REFUSED)
def test_what_is_odd_is_an_error_and_never_a_plaintext(
    running: KmsPair, client: Any, key: KmsKey, ciphertext: bytes, fault: Fault, reason: str
) -> None:
    enclave = running.pair.enclave
    assert enclave is not None
    after = len(enclave.lines)
    running.kms.plan(fault)
    kind, message, status = error_of(
        client.decrypt, CiphertextBlob=ciphertext, EncryptionContext=CONTEXT, KeyId=key.arn
    )
    assert (kind, status) == ("VsockproxyAnswerException", 502)
    assert message.startswith(f"vsockproxy: {reason}: ")
    enclave.wait_for_event("kms_call", after=after, level="warning", reason=reason, status=502)


@pytest.mark.usefixtures("works_afterwards")
@pytest.mark.parametrize("fault", CUT)
def test_an_answer_that_is_cut_is_none(
    running: KmsPair, client: Any, ciphertext: bytes, fault: Fault
) -> None:
    running.kms.plan(fault)
    kind, message, status = error_of(
        client.decrypt, CiphertextBlob=ciphertext, EncryptionContext=CONTEXT
    )
    assert (kind, status) == ("VsockproxyUnavailableException", 503)
    assert message.startswith("vsockproxy: cut: ")


def test_sdks_try_again_what_was_our_trouble(running: KmsPair, ciphertext: bytes) -> None:
    running.kms.plan(Fault.CUT_IN_BODY)
    patient = running.client(config=Config(retries={"mode": "standard", "total_max_attempts": 3}))
    found = patient.decrypt(CiphertextBlob=ciphertext, EncryptionContext=CONTEXT)
    assert found["Plaintext"] == SECRET
    patient.close()


# --------------------------------------------------------------- what programs say wrong


def say(running: KmsPair, data: bytes) -> bytes:
    """Send bytes, and read to the end of the connection."""
    with socket.create_connection(("127.0.0.1", running.port), 30) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        received = b""
        while piece := sock.recv(65_536):
            received += piece
    return received


SIGNED = (
    b"POST / HTTP/1.1\r\nHost: a\r\nX-Amz-Target: TrentService.GenerateRandom\r\n"
    b"Authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260101/%s/%s/aws4_request, "
    b"SignedHeaders=host, Signature=" + b"0" * 64 + b"\r\n"
    b"Content-Type: application/x-amz-json-1.1\r\n"
)
HEAD = SIGNED % (REGION.encode(), b"kms")

WRONG = {
    "no HTTP": (b"400 ", b"http", b"hello\r\n\r\n"),
    "another method": (b"400 ", b"request_line", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    "another service": (
        b"400 ",
        b"service",
        SIGNED % (REGION.encode(), b"sts") + b"Content-Length: 2\r\n\r\n{}",
    ),
    "a region that is none": (
        b"400 ",
        b"region",
        SIGNED % (b"nowhere", b"kms") + b"Content-Length: 2\r\n\r\n{}",
    ),
    "no JSON": (b"400 ", b"body", HEAD + b"Content-Length: 2\r\n\r\n[]"),
    "too much": (b"413 ", b"http", HEAD + b"Content-Length: 600000\r\n\r\n" + bytes(600_000)),
    "too much in chunks": (
        b"413 ",
        b"http",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"8000\r\n%s\r\n" % bytes(0x8000) * 17,
    ),
}


@pytest.mark.parametrize(("status", "reason", "data"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_passed_is_refused_in_aws_s_form(
    running: KmsPair, status: bytes, reason: bytes, data: bytes
) -> None:
    said = say(running, data)
    assert said.startswith(b"HTTP/1.1 " + status)
    assert b"\r\nx-amzn-ErrorType: VsockproxyRequestException\r\n" in said
    error = json.loads(said.partition(b"\r\n\r\n")[2])
    assert error["__type"] == "VsockproxyRequestException"
    assert error["message"].startswith(f"vsockproxy: {reason.decode()}: ")


def test_a_body_in_chunks_is_taken(running: KmsPair) -> None:
    said = say(
        running,
        HEAD + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        b'8\r\n{"Number\r\nc\r\nOfBytes": 3}\r\n0\r\n\r\n',
    )
    assert said.startswith(b"HTTP/1.1 200 ")
    assert b"x-amzn-requestid: " in said.lower()
    assert b"x-amz-crc32" not in said.lower()


def test_another_region_is_another_endpoint_which_the_lists_do_not_allow(
    running: KmsPair,
) -> None:
    elsewhere = running.client(region_name="us-gov-west-1")
    kind, message, status = error_of(elsewhere.generate_random, NumberOfBytes=1)
    elsewhere.close()
    assert (kind, status) == ("VsockproxyNotAllowedException", 403)
    assert message.startswith("vsockproxy: not_listed: kms.us-gov-west-1.amazonaws.com:443 ")


# ------------------------------------------------------------- other machines and files


def test_a_certificate_for_another_name_is_not_trusted(authority: Authority) -> None:
    with kms_pair(authority, names=("kms.example.test",)) as running:
        client = running.client()
        kind, message, _ = error_of(client.generate_random, NumberOfBytes=1)
        assert kind == "VsockproxyAnswerException"
        assert message.startswith(f"vsockproxy: certificate: the certificate of {HOST}:")
        client.close()


def test_roots_that_are_not_ours_do_not_do(
    authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = Authority(tmp_path_factory.mktemp("other"))
    with kms_pair(authority, kms={"ca": str(other.file)}) as running:
        client = running.client()
        _, message, _ = error_of(client.generate_random, NumberOfBytes=1)
        assert message.startswith("vsockproxy: certificate: ")
        client.close()


def test_a_file_of_roots_without_any_is_said_to_every_call(
    authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A start refuses such a file, so it has become one since."""
    empty = tmp_path_factory.mktemp("empty") / "roots.pem"
    shutil.copy(authority.file, empty)
    with kms_pair(authority, kms={"ca": str(empty)}) as running:
        empty.write_text("none\n")
        enclave = running.pair.enclave
        assert enclave is not None
        (process,) = (pid for pid in enclave.workers if not is_worker(pid))
        kill(process)
        enclave.wait_for_event("kms_unusable")
        client = running.client()
        kind, message, _ = error_of(client.generate_random, NumberOfBytes=1)
        assert kind == "VsockproxyUnavailableException"
        assert message.startswith(f"vsockproxy: ca: kms.ca: {empty} holds no certificates")
        client.close()


def test_without_a_parent_that_answers_the_call_says_so(authority: Authority) -> None:
    with kms_pair(authority) as running:
        client = running.client()
        client.generate_random(NumberOfBytes=1)
        assert running.pair.parent is not None
        running.pair.parent.kill()
        kind, message, status = error_of(client.generate_random, NumberOfBytes=1)
        assert (kind, status) == ("VsockproxyUnavailableException", 503)
        assert message.startswith("vsockproxy: parent_away: ")
        client.close()


def test_a_process_of_services_that_dies_is_replaced_and_has_another_key(
    authority: Authority,
) -> None:
    with kms_pair(authority) as running:
        client = running.client()
        keys = []
        enclave = running.pair.enclave
        assert enclave is not None
        for is_last in (False, True):
            found = client.generate_random(NumberOfBytes=9)
            assert len(found["Plaintext"]) == 9
            sent = json.loads(running.kms.requests[-1].body)["Recipient"]["AttestationDocument"]
            keys.append(document_fields(base64.b64decode(sent))["public_key"])
            if not is_last:
                (process,) = (pid for pid in enclave.workers if not is_worker(pid))
                kill(process)
                enclave.wait_for_event("service_died")
        assert keys[0] != keys[1]
        client.close()


def test_roots_that_are_not_there_stop_the_start(tmp_path: Path) -> None:
    config = tmp_path / "enclave.yaml"
    listens = {"kms": free_port(), "credentials": free_port()}
    content = {
        "parent": f"unix://{tmp_path}/link.sock",
        "shim": {"http_proxy": None, "streams": f"/tmp/vsockproxy-{listens['kms']}.sock"},
        "credentials": {"listen": f"127.0.0.1:{listens['credentials']}"},
        "kms": {"listen": f"127.0.0.1:{listens['kms']}", "ca": f"{tmp_path}/none.pem"},
    }
    config.write_text(json.dumps(content))
    side = Side("enclave", config)
    try:
        assert side.process.wait(30) == 2
    finally:
        side.kill()
    said = (
        f"{config}:1: kms.ca: {tmp_path}/none.pem cannot be read: no such file or directory: "
        "write a PEM file with roots, or leave ca out for the image's own"
    )
    assert side.raw == [said]


def test_without_a_module_an_attested_call_says_so(authority: Authority, tmp_path: Path) -> None:
    with kms_pair(authority, enclave={"attestation": {"device": f"{tmp_path}/none"}}) as running:
        client = running.client()
        kind, message, status = error_of(client.generate_random, NumberOfBytes=1)
        assert (kind, status) == ("VsockproxyAttestationException", 500)
        assert message.startswith("vsockproxy: nsm: the Nitro Secure Module gave no document: ")
        assert client.list_keys()["Keys"] == []
        client.close()
        assert running.pair.enclave is not None
        text = (
            f"there is no {tmp_path}/none, so no documents for kms: "
            "attestation: {device: software} in enclave.yaml is for development"
        )
        running.pair.enclave.wait_for_event("left_out", text=text)
        running.pair.enclave.wait_for_event("kms_call", operation="GenerateRandom", attested=False)
