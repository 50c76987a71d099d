"""Both sides with a KMS proxy in the enclave: its module is software, its KMS a test's."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]  # it has no types
from botocore.config import Config  # type: ignore[import-untyped]  # it has no types
from cryptography.hazmat.primitives.serialization import Encoding

from tests.support.aws_signatures import KnownKey
from tests.support.certificates import Authority
from tests.support.kms_server import KmsServer, serving_kms
from tests.support.metadata_service import MetadataService, serving_metadata
from tests.support.nsm_server import module_root
from tests.support.pair import Pair, free_port
from vsockproxy.attestation.software_nsm import SOFTWARE_PCRS
from vsockproxy.attestation.software_pki import write_root

REGION = "eu-west-1"
HOST = f"kms.{REGION}.amazonaws.com"
MEASURED = {index: value.hex() for index, value in SOFTWARE_PCRS.items()}
"""The measurements of the software module, as policies of keys have them."""


def known_key(metadata: MetadataService, access_key_id: str) -> KnownKey | None:
    """What the metadata service has said with that access key, while it is good."""
    if not metadata.is_good(access_key_id):
        return None
    return KnownKey(f"secret/{access_key_id}+x", f"session/{access_key_id}==")


@dataclass(frozen=True, slots=True)
class KmsPair:
    """A running pair with a KMS.

    Args:
        pair: both sides.
        kms: where the proxy's calls go.
        metadata: whose credentials it takes.
        port: of the proxy.
    """

    pair: Pair
    kms: KmsServer
    metadata: MetadataService
    port: int

    def client(self, **changes: Any) -> Any:
        """What boto3 makes where AWS_ENDPOINT_URL_KMS leads here; close it."""
        arguments = {
            "region_name": REGION,
            "aws_access_key_id": "AKIDOFTHEPROGRAM",
            "aws_secret_access_key": "which nobody checks",
            "endpoint_url": f"http://127.0.0.1:{self.port}",
            "config": Config(retries={"total_max_attempts": 1}, read_timeout=60),
        }
        return boto3.client("kms", **{**arguments, **changes})

    def calls(self) -> list[dict[str, Any]]:
        """What the enclave's log has of calls so far."""
        assert self.pair.enclave is not None
        return self.pair.enclave.events("kms_call")


@contextmanager
def software_root() -> Iterator[Path]:
    """A file with the root of the tests' software modules."""
    with tempfile.TemporaryDirectory(prefix="vsockproxy-root-") as directory:
        file = Path(directory) / "root.pem"
        file.touch(mode=0o600)
        file.write_bytes(write_root(module_root()))
        yield file


@contextmanager
def kms_pair(
    authority: Authority,
    *,
    kms: Mapping[str, Any] | None = None,
    enclave: Mapping[str, Any] | None = None,
    names: tuple[str, ...] = (HOST,),
) -> Iterator[KmsPair]:
    """Start all of it.

    Args:
        authority: signs the KMS's certificate.
        kms: further keys of the section, or in place of those.
        enclave: further keys of enclave.yaml.
        names: of its certificate.
    """
    with ExitStack() as stack:
        metadata = stack.enter_context(serving_metadata(MetadataService()))
        server = KmsServer(
            REGION,
            credentials=lambda access_key_id: known_key(metadata, access_key_id),
            roots=[module_root().certificate.public_bytes(Encoding.DER)],
        )
        stack.enter_context(serving_kms(server, authority.context(*names)))
        root = stack.enter_context(software_root())
        rule = {"address": HOST, "port": server.port, "private": True}
        port, credentials = free_port(), free_port()
        pair = Pair(
            "unix",
            [rule],
            parent_rules=[{**rule, "dial": f"127.0.0.1:{server.port}"}],
            parent={
                "credentials": {
                    "imds": f"http://127.0.0.1:{metadata.port}",
                    "enclaves": [Pair.CID],
                }
            },
            enclave={
                "attestation": {"device": "software", "root": os.fspath(root)},
                "credentials": {"listen": f"127.0.0.1:{credentials}"},
                "kms": {
                    "listen": f"127.0.0.1:{port}",
                    "endpoints": {REGION: f"https://{HOST}:{server.port}"},
                    "ca": os.fspath(authority.file),
                    **(kms or {}),
                },
                **(enclave or {}),
            },
        )
        stack.enter_context(pair)
        yield KmsPair(pair, server, metadata, port)
