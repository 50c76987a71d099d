"""The part of the enclave's services that is between its programs and KMS: what it is made of."""

import os
import ssl
from functools import partial
from typing import Final

import trio
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from enclave_side.services.kms_documents import FreshDocuments
from enclave_side.services.kms_proxy import MAX_CALL_BYTES, KmsProxy, refusal, refuse_request
from enclave_side.services.kms_upstream import KmsEndpoints, tls_context
from vsockproxy.attestation.kms_envelope import open_envelope
from vsockproxy.attestation.kms_errors import KmsUnavailable
from vsockproxy.config.model import EnclaveConfig
from vsockproxy.control.service_process import ServiceProcess
from vsockproxy.nsm_device import Nsm
from vsockproxy.protocols.http_conversation import BodyRequest
from vsockproxy.protocols.http_service import ServiceAnswer
from vsockproxy.services.credentials_keeper import CredentialsKeeper
from vsockproxy.services.kept_connections import AnswerCall, serve_kept_connections

__all__ = ("serve_kms",)

KEY_BITS: Final = 2048
"""What KMS takes in documents (AWS, aws-nitro-enclaves-sdk-c)."""

PUBLIC_EXPONENT: Final = 65_537

NO_ROOTS: Final = (
    "the image has no roots for TLS: put a file with them there (the package ca-certificates), "
    "or write kms.ca"
)


async def serve_kms(process: ServiceProcess, keeper: CredentialsKeeper, nsm: Nsm) -> None:
    """Serve the endpoint of `kms`.

    The private key exists in this process alone, from its start to its end.

    Args:
        process: what this process was given.
        keeper: has the credentials, and is run by somebody else.
        nsm: makes documents.
    """
    config = process.document.config
    assert isinstance(config, EnclaveConfig)  # the supervisor loaded an enclave's file
    kms, streams = config.kms, config.shim.streams
    assert kms is not None  # or nobody would have called us
    assert streams is not None  # a rule of the configuration
    if kms.ca is None and not _system_has_roots():
        process.log.error("kms_without_roots", text=NO_ROOTS)
    try:
        context = tls_context(kms.ca)
    except OSError as error:
        await _serve_refusals(process, f"kms.ca: {kms.ca} holds no certificates: {error}")
        return
    private_key = await trio.to_thread.run_sync(rsa.generate_private_key, PUBLIC_EXPONENT, KEY_BITS)
    public_key = private_key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    documents = FreshDocuments(partial(nsm.attest, public_key=public_key))
    async with trio.open_nursery() as nursery:
        endpoints = KmsEndpoints(kms.endpoints, streams, context, nursery, is_fips=kms.fips)
        proxy = KmsProxy(
            endpoints.of,
            documents,
            partial(open_envelope, private_key=private_key),
            keeper,
            process.log,
            kms.accounts,
        )
        nursery.start_soon(_serve, process, proxy.answer)


async def _serve(process: ServiceProcess, answering: AnswerCall) -> None:
    async with trio.open_nursery() as nursery:
        for summary, listener in process.listeners:
            if summary.kind == "kms":
                serving = partial(serve_kept_connections, max_body_bytes=MAX_CALL_BYTES)
                nursery.start_soon(serving, listener, answering, refuse_request, process.log)


async def _serve_refusals(process: ServiceProcess, text: str) -> None:
    """Say to every call what is wrong with the image."""
    process.log.error("kms_unusable", text=text)
    answer = refusal(KmsUnavailable("ca", text))

    async def refuse(_: BodyRequest) -> ServiceAnswer:
        return answer

    await _serve(process, refuse)


def _system_has_roots() -> bool:
    """Whether there is anything where OpenSSL looks for roots."""
    paths = ssl.get_default_verify_paths()
    if paths.cafile is not None:
        return True
    return paths.capath is not None and bool(os.listdir(paths.capath))
