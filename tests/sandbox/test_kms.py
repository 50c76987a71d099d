"""KMS for unmodified programs: boto3 and the SDK for JavaScript know nothing but the environment.

The one call of boto3 needs a region, which the parent names, and credentials, which are the
instance role's; AWS_ENDPOINT_URL_KMS does the rest.
"""

import json
import os
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from tests.sandbox.sandboxes import Done, run_sandbox
from tests.support import javascript
from tests.support.certificates import Authority
from tests.support.kms_pair import HOST, MEASURED, REGION, known_key, software_root
from tests.support.kms_server import KmsServer, serving_kms
from tests.support.metadata_service import MetadataService, serving_metadata
from tests.support.nsm_server import module_root
from tests.support.program import Program

CID = 4
"""Of a sandbox whose parent's file names none."""

WITH_BOTO3 = """
import json, sys
import boto3
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

symmetric, agreement = sys.argv[1:]
client = boto3.client("kms")
context = {"purpose": "test"}
sealed = client.encrypt(KeyId=symmetric, Plaintext=b"secret", EncryptionContext=context)
opened = client.decrypt(CiphertextBlob=sealed["CiphertextBlob"], EncryptionContext=context)
made = client.generate_data_key(KeyId=symmetric, KeySpec="AES_256")
again = client.decrypt(CiphertextBlob=made["CiphertextBlob"])
pair = client.generate_data_key_pair(KeyId=symmetric, KeyPairSpec="ECC_NIST_P256")
private = serialization.load_der_private_key(pair["PrivateKeyPlaintext"], None)
der = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
own = ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(*der)
agreed = [
    client.derive_shared_secret(KeyId=agreement, KeyAgreementAlgorithm="ECDH", PublicKey=own)
    for _ in range(2)
]
secrets = [each["SharedSecret"] for each in agreed]
print(json.dumps({
    "keys": sorted(key["KeyArn"] for key in client.list_keys()["Keys"]),
    "decrypted": opened["Plaintext"].decode(),
    "data key": again["Plaintext"] == made["Plaintext"],
    "pair": private.public_key().public_bytes(*der) == pair["PublicKey"],
    "random": len(client.generate_random(NumberOfBytes=17)["Plaintext"]),
    "agreed": [len(secrets[0]), secrets[0] == secrets[1]],
}))
"""


@dataclass(frozen=True, slots=True)
class Machines:
    """A KMS, and the files of a sandbox that reaches it."""

    kms: KmsServer
    files: tuple[str, ...]

    def run(self, *command: str, **variables: str) -> Done:
        nothing = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
        return run_sandbox(self.files, command, {**nothing, **variables})


@pytest.fixture
def machines(namespaces: None, tmp_path: Path) -> Iterator[Machines]:
    del namespaces
    authority = Authority(tmp_path)
    metadata = MetadataService(region=REGION)
    server = KmsServer(
        REGION,
        credentials=lambda access_key_id: known_key(metadata, access_key_id),
        roots=[module_root().certificate.public_bytes(Encoding.DER)],
    )
    with (
        serving_metadata(metadata),
        serving_kms(server, authority.context(HOST)),
        software_root() as root,
    ):
        rule = {"address": HOST, "port": 443}
        dialled = {**rule, "dial": f"127.0.0.1:{server.port}", "private": True}
        credentials = {"imds": f"http://127.0.0.1:{metadata.port}", "enclaves": [CID]}
        parent = write(
            tmp_path / "parent.yaml",
            listen="vsock://any:5000",
            allowlist=[dialled],
            credentials=credentials,
        )
        enclave = write(
            tmp_path / "enclave.yaml",
            parent="vsock://3:5000",
            allowlist=[rule],
            attestation={"device": "software", "root": str(root)},
            kms={"ca": str(authority.file)},
        )
        yield Machines(server, ("--config-parent", parent, "--config-enclave", enclave))


def write(path: Path, **content: Any) -> str:
    path.write_text(json.dumps(content))
    return str(path)


def test_boto3_as_it_is(machines: Machines) -> None:
    symmetric = machines.kms.store.create(pcrs=MEASURED)
    agreement = machines.kms.store.create(pcrs=MEASURED, curve="ECC_NIST_P256")
    done = machines.run(sys.executable, "-c", WITH_BOTO3, symmetric.arn, agreement.arn)
    assert done.status == 0, done.stderr
    assert json.loads(done.stdout) == {
        "keys": sorted([symmetric.arn, agreement.arn]),
        "decrypted": "secret",
        "data key": True,
        "pair": True,
        "random": 17,
        "agreed": [32, True],
    }
    assert sum(machines.kms.count.attested.values()) == 7
    assert machines.kms.count.handshakes == 1


@pytest.mark.skipif(
    javascript.what_is_missing() is not None, reason=javascript.what_is_missing() or "present"
)
def test_the_sdk_for_javascript_as_it_is(machines: Machines) -> None:
    symmetric = machines.kms.store.create(pcrs=MEASURED)
    agreement = machines.kms.store.create(pcrs=MEASURED, curve="ECC_NIST_P256")
    done = machines.run(
        *javascript.kms_calls(symmetric.arn, agreement.arn), NODE_PATH=str(javascript.MODULES)
    )
    assert done.status == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert set(outcome.pop("keys")) == {symmetric.arn, agreement.arn}
    outcome.pop("node")
    assert outcome == dict.fromkeys(javascript.EVERY_CALL[1:], True)
    assert machines.kms.count.errors == {}
    assert machines.kms.count.handshakes == 1


def test_the_environment_leads_to_the_proxy_whatever_the_image_says(machines: Machines) -> None:
    program = 'import os; print(os.environ["AWS_ENDPOINT_URL_KMS"], os.environ["AWS_REGION"])'
    elsewhere = {"AWS_ENDPOINT_URL_KMS": "http://127.0.0.1:1"}
    done = machines.run(sys.executable, "-c", program, **elsewhere)
    assert done.stdout.split() == ["http://127.0.0.1:4500", REGION]


def test_the_demonstration_without_nitro(namespaces: None, tmp_path: Path) -> None:
    """What docs/operations.md says to type."""
    del namespaces
    with Program([sys.executable, "-m", "tests.demo.kms", str(tmp_path)]) as program:
        assert program.process.stdout is not None
        words = shlex.split(program.process.stdout.readline().decode())
        assert words[:2] == ["vsockproxy", "sandbox"]
        files, command = words[2:6], words[7:]
        assert command[0] == "python"
        nothing = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
        done = run_sandbox(files, [sys.executable, *command[1:]], nothing)
    assert done.status == 0, done.stderr
    assert len(bytes.fromhex(done.stdout.strip())) == 8
    assert "names leave out" not in done.stderr, "no program connects to the KMS itself"
