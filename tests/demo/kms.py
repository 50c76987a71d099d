"""A KMS and a metadata service on loopback, and the files of a sandbox that uses them.

    python -m tests.demo.kms DIRECTORY

It serves until Ctrl-C or SIGTERM. Everything in it is made up: keys live as long as it does, and
every attestation document of a software module is believed.
"""

import json
import signal
import sys
from pathlib import Path

from tests.support.certificates import Authority
from tests.support.kms_pair import known_key
from tests.support.kms_server import KmsServer, serving_kms
from tests.support.metadata_service import MetadataService, serving_metadata

__all__ = ("main",)

REGION = "eu-west-1"
HOST = "127.0.0.1"
SANDBOX_CID = 4

CALL = (
    "import boto3; print(boto3.client('kms').generate_random(NumberOfBytes=8)['Plaintext'].hex())"
)


def main(directory: Path) -> None:
    """Write the files, serve, and say how to use it."""
    stops = (signal.SIGINT, signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)  # before there are threads, which inherit it
    directory.mkdir(parents=True, exist_ok=True)
    authority = Authority(directory)
    metadata = MetadataService(region=REGION)
    kms = KmsServer(
        REGION, credentials=lambda name: known_key(metadata, name), roots=None, hosts=[HOST]
    )
    kms.store.create(alias="demo")
    with serving_metadata(metadata), serving_kms(kms, authority.context(HOST)):
        rule = f"  - {{address: {HOST}, port: {kms.port}, private: true}}\n"
        parent, enclave = directory / "parent.yaml", directory / "enclave.yaml"
        parent.write_text(
            f"listen: vsock://any:5000\nallowlist:\n{rule}"
            f'credentials: {{enclaves: [{SANDBOX_CID}], imds: "http://{HOST}:{metadata.port}"}}\n'
        )
        enclave.write_text(
            f"parent: vsock://3:5000\nallowlist:\n{rule}"
            f'kms: {{endpoints: {{{REGION}: "https://{HOST}:{kms.port}"}}, '
            f"ca: {json.dumps(str(authority.file))}}}\n"
            "attestation: {device: software}\n"
        )
        print("vsockproxy sandbox --config-parent", parent, "--config-enclave", enclave, end=" ")
        print(f'-- python -c "{CALL}"', flush=True)
        signal.sigwait(stops)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
