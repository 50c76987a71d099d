"""`python -m tests.support.kms_server`, as benchmarks start it."""

import json
import signal
import sys
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]  # it has no types
import pytest
from botocore.exceptions import ClientError  # type: ignore[import-untyped]  # it has no types
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from tests.kms.test_operations import MEASURED, recipient
from tests.support.nsm_server import module_root
from tests.support.program import Program
from vsockproxy.attestation.kms_envelope import open_envelope


def started(program: Program) -> Any:
    assert program.process.stdout is not None
    return json.loads(program.process.stdout.readline())


def connected(place: Any) -> Any:
    return boto3.client(
        "kms",
        region_name=place["region"],
        aws_access_key_id="AKIDEXAMPLE",
        aws_secret_access_key="wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
        endpoint_url=f"https://localhost:{place['port']}",
        verify=place["ca"],
    )


def test_it_says_where_it_is_and_what_it_counted(
    tmp_path: Path, enclave_key: rsa.RSAPrivateKey
) -> None:
    root = tmp_path / "root.pem"
    root.write_bytes(module_root().certificate.public_bytes(Encoding.PEM))
    policy = [f"--pcr={index}={value}" for index, value in MEASURED.items()]
    command = [sys.executable, "-m", "tests.support.kms_server", "--name", "localhost"]
    with Program([*command, "--directory", str(tmp_path), "--root", str(root), *policy]) as program:
        place = started(program)
        client = connected(place)
        key = place["symmetric_key"]

        answer = client.generate_data_key(
            KeyId=key, KeySpec="AES_256", Recipient=recipient(enclave_key)
        )
        with pytest.raises(ClientError, match="AccessDenied"):
            client.decrypt(CiphertextBlob=answer["CiphertextBlob"])
        client.close()
        program.signal(signal.SIGTERM)
        status, said = program.end()

    assert len(open_envelope(answer["CiphertextForRecipient"], enclave_key)) == 32
    assert status == 0
    assert program.lines == []
    counted = json.loads(said)
    assert counted["attested"] == {"GenerateDataKey": 1}
    assert counted["errors"] == {"AccessDeniedException": 1}
    assert counted["handshakes"] == 1


def test_without_a_root_every_document_is_believed(
    tmp_path: Path, enclave_key: rsa.RSAPrivateKey
) -> None:
    command = [sys.executable, "-m", "tests.support.kms_server", "--name", "localhost"]
    with Program([*command, "--directory", str(tmp_path)]) as program:
        client = connected(started(program))
        who = recipient(enclave_key)
        who["AttestationDocument"] = who["AttestationDocument"][:-1] + b"\0"

        answer = client.generate_random(NumberOfBytes=32, Recipient=who)
        who["AttestationDocument"] = b"no document"
        with pytest.raises(ClientError, match="ValidationException"):
            client.generate_random(NumberOfBytes=32, Recipient=who)
        client.close()

    assert len(open_envelope(answer["CiphertextForRecipient"], enclave_key)) == 32
