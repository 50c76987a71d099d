"""What `check` says about certificates by ACME."""

import pytest

from vsockproxy.config.load import ConfigErrors, parse
from vsockproxy.config.model import AcmeAuthority, CertificateSource, EnclaveConfig

ENCLAVE = "parent: vsock://3:5000\n"
DIRECTORY = "directory: 'https://ca.test/dir'"
ANSWERING = "{service: acme, to: acme}"


def service(
    acme: str = DIRECTORY,
    *,
    certificate: str | None = None,
    names: str = "[a.test]",
    name: str = "web",
) -> str:
    written = certificate or f"{{acme: {{{acme}}}}}"
    tls = f"{{certificate: {written}, names: {names}}}"
    return f"{{service: {name}, to: 'tcp://127.0.0.1:80', tls: {tls}}}"


def report(*services: str, more: str = "") -> list[str]:
    with pytest.raises(ConfigErrors) as caught:
        parse(f"{ENCLAVE}ingress: [{', '.join(services)}]\n{more}".encode(), "f")
    return [line.removeprefix("f:2: ") for line in str(caught.value).splitlines()]


ACME = "ingress[0].tls.certificate.acme"

FAULTS: dict[str, tuple[list[str], str]] = {
    "nobody answers": (
        [service()],
        f"{ACME}: no service answers the authority's challenges: "
        "add {service: acme, to: acme}, which the parent listens for on port 80",
    ),
    "nobody asks": (
        [ANSWERING],
        "ingress[0].to: no service has a certificate by ACME: "
        "remove it, or write tls.certificate.acme at a service",
    ),
    "two answer": (
        [ANSWERING, "{service: again, to: acme}", service()],
        "ingress[1].to: acme is there already, ingress[0].to: write one entry for it",
    ),
    "no names": (
        [service(names="[]"), ANSWERING],
        "ingress[0].tls.names: an authority issues certificates for names, and there are none: "
        "write the service's names",
    ),
    "challenges behind TLS": (
        [service(), "{service: acme, to: acme, tls: {}}"],
        "ingress[1].tls: the authority asks without TLS: remove it",
    ),
    "challenges behind a header": (
        [service(), "{service: acme, to: acme, proxy_protocol: v2}"],
        "ingress[1].proxy_protocol: what answers challenges asks nobody who they are: remove it",
    ),
    "a file as well": (
        [service(certificate=f"{{acme: {{{DIRECTORY}}}, key: /key.pem}}"), ANSWERING],
        "ingress[0].tls.certificate.key: key beside acme: the certificate can come from one place: "
        "write one of them",
    ),
    "no directory": (
        [service("contact: 'mailto:a@b.c'"), ANSWERING],
        f"{ACME}.directory: missing: write a URL that begins with https://",
    ),
    "a directory without TLS": (
        [service("directory: 'http://ca.test/dir'"), ANSWERING],
        f"{ACME}.directory: 'http://ca.test/dir' does not fit: "
        "write a URL that begins with https://",
    ),
    "a contact that is none": (
        [service(f"{DIRECTORY}, contact: ops"), ANSWERING],
        f"{ACME}.contact: 'ops' does not fit: write an address as mailto:ops@example.com",
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_is_said_once(case: str) -> None:
    services, line = FAULTS[case]
    assert report(*services) == [line]


def test_without_a_stream_socket_nobody_can_be_asked() -> None:
    lines = report(service(), ANSWERING, more="shim: {streams: null}\n")
    assert lines == [
        f"{ACME}: the authority is asked over the stream socket, which is turned off: "
        "remove shim.streams: null"
    ]


def test_several_services_and_one_that_answers() -> None:
    text = ", ".join((service(), service(name="api", names="[b.test, c.test]"), ANSWERING))
    document = parse(f"{ENCLAVE}ingress: [{text}]\nworkers: 2\n".encode(), "f")

    assert type(document).from_builtins(document.to_builtins()) == document
    assert isinstance(document.config, EnclaveConfig)
    tls = document.config.ingress[1].tls
    assert tls is not None
    assert tls.certificate == CertificateSource(acme=AcmeAuthority("https://ca.test/dir"))
