"""A KMS, and clients of boto3 that know it."""

from collections.abc import Iterator
from typing import Any

import boto3  # type: ignore[import-untyped]  # it has no types
import pytest
from botocore.config import Config  # type: ignore[import-untyped]  # it has no types
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from tests.support.aws_signatures import KnownKey
from tests.support.certificates import Authority
from tests.support.kms_server import KmsServer, serving_kms
from tests.support.nsm_server import module_root

REGION = "eu-west-1"
ACCESS_KEY = "ASIAEXAMPLE"
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
TOKEN = "SESSIONTOKENEXAMPLE=="


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def credentials() -> dict[str, KnownKey]:
    """Whom the server takes."""
    return {ACCESS_KEY: KnownKey(SECRET_KEY, TOKEN)}


@pytest.fixture
def server(authority: Authority, credentials: dict[str, KnownKey]) -> Iterator[KmsServer]:
    server = KmsServer(
        REGION,
        credentials=credentials,
        roots=[module_root().certificate.public_bytes(Encoding.DER)],
        hosts=["localhost"],
    )
    with serving_kms(server, authority.context("localhost")):
        yield server


@pytest.fixture
def connect(server: KmsServer, authority: Authority) -> Iterator[Any]:
    """Makes clients: keyword arguments in place of what is right."""
    clients = []

    def make(**changes: Any) -> Any:
        arguments = {
            "region_name": REGION,
            "aws_access_key_id": ACCESS_KEY,
            "aws_secret_access_key": SECRET_KEY,
            "aws_session_token": TOKEN,
            "endpoint_url": f"https://localhost:{server.port}",
            "verify": str(authority.file),
            "config": Config(retries={"total_max_attempts": 1}, read_timeout=20),
        }
        clients.append(boto3.client("kms", **{**arguments, **changes}))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def client(connect: Any) -> Any:
    return connect()


@pytest.fixture(scope="session")
def enclave_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)
