"""What a worker presents for a service: the first certificate, and those after it."""

import os
import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from enclave_side import service_identity
from enclave_side.service_identity import IdentityError, ServiceIdentity
from tests.support.certificates import Authority
from vsockproxy.certificates.self_signed import make_self_signed
from vsockproxy.certificates.served import ServedCertificate
from vsockproxy.config.model import IngressTls
from vsockproxy.dataplane.loop import run, sleep, spawn
from vsockproxy.dataplane.tls_failures import TlsFailed
from vsockproxy.passed_memory import memory_descriptor
from vsockproxy.worker_messages import Certificate


def made(serial: int) -> ServedCertificate:
    key = ec.generate_private_key(ec.SECP256R1())
    return make_self_signed(key, "web", [], datetime.now(UTC), serial)


def renew(identity: ServiceIdentity, served: ServedCertificate) -> None:
    descriptor = memory_descriptor("test", served.pem)
    try:
        identity.renew(Certificate("web", served.public_key, "generated"), descriptor)
    finally:
        os.close(descriptor)


def test_another_certificate_is_for_connections_from_now_on() -> None:
    first, second = made(1), made(2)

    async def main() -> None:
        identity = ServiceIdentity("web", IngressTls())
        renew(identity, first)
        before = await identity.get()
        renew(identity, second)
        after = await identity.get()
        assert (before.public_key, after.public_key) == (first.public_key, second.public_key)
        assert before.context is not after.context
        assert before.context.minimum_version is ssl.TLSVersion.TLSv1_2

    run(main())


def test_who_comes_before_the_first_one_waits() -> None:
    async def main() -> None:
        identity = ServiceIdentity("web", IngressTls())
        waiting = spawn(identity.get(), "wait")
        await sleep(0)
        assert not waiting.done()
        served = made(1)
        renew(identity, served)
        assert (await waiting).public_key == served.public_key

    run(main())


def test_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_identity, "CERTIFICATE_SECONDS", 0.01)

    async def main() -> None:
        with pytest.raises(TlsFailed, match="web has no certificate yet"):
            await ServiceIdentity("web", IngressTls()).get()

    run(main())


def test_what_cannot_be_used_changes_nothing() -> None:
    async def main() -> None:
        identity = ServiceIdentity("web", IngressTls())
        good = made(1)
        renew(identity, good)
        broken = ServedCertificate(b"no pem", b"key", good.not_before, good.not_after)
        with pytest.raises(IdentityError, match="the certificate of web cannot be used"):
            renew(identity, broken)
        assert (await identity.get()).public_key == good.public_key

    run(main())


def test_clients_certificates_are_demanded_where_the_file_says_so(tmp_path: Path) -> None:
    authority = Authority(tmp_path)

    async def main() -> None:
        identity = ServiceIdentity("web", IngressTls(client_ca=str(authority.file)))
        renew(identity, made(1))
        assert (await identity.get()).context.verify_mode is ssl.CERT_REQUIRED
        identity = ServiceIdentity("web", IngressTls(client_ca="/nonexistent"))
        with pytest.raises(IdentityError, match="/nonexistent cannot be read"):
            renew(identity, made(1))

    run(main())
