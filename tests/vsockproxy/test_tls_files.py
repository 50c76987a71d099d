"""The PEM files that a configuration names: what is wrong with them, and where that is said."""

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.certificates import Authority
from tests.support.nsm_server import module_root
from vsockproxy.attestation.software_pki import write_root
from vsockproxy.cli.check import command
from vsockproxy.cli.files import EXIT_INVALID
from vsockproxy.cli.main import main
from vsockproxy.config.load import parse
from vsockproxy.tls_files import KMS_ROOTS, TEST_ROOT, check_tls_files


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def enclave_file(path: Path, tls: str) -> Path:
    file = path / "enclave.yaml"
    forward = "{listen: 'tcp://127.0.0.1:1', to: 'a.test:443', tls: " + tls + "}"
    file.write_text(f"parent: vsock://3:5000\nforwards:\n  - {forward}\n")
    return file


def test_files_that_are_right_are_no_news(tmp_path: Path, authority: Authority) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes("# Schlüssel für alle\n".encode() + authority.file.read_bytes())
    client = authority.issue("client.test")
    file = enclave_file(tmp_path, f"{{ca: {bundle}, client_cert: {client}}}")
    done = CliRunner().invoke(command, [str(file)])
    assert (done.exit_code, done.stdout) == (0, "")


def _encrypted(authority: Authority, path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    pem = authority.issue("client.test").read_bytes()
    path.write_bytes(key + pem[pem.index(b"-----BEGIN CERT") :])


def _of_another(authority: Authority, path: Path) -> None:
    one, other = (authority.issue("client.test").read_bytes() for _ in range(2))
    at = one.index(b"-----BEGIN CERT")
    path.write_bytes(one[:at] + other[other.index(b"-----BEGIN CERT") :])


def _nothing(authority: Authority, path: Path) -> None:
    del authority, path


def _text(authority: Authority, path: Path) -> None:
    del authority
    path.write_text("this is no PEM file\n")


def _certificate_alone(authority: Authority, path: Path) -> None:
    path.write_bytes(authority.file.read_bytes())


def _huge(authority: Authority, path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(5 * 1024 * 1024)
    del authority


def _cut_short(authority: Authority, path: Path) -> None:
    path.write_bytes(authority.file.read_bytes()[:200])


MISSING = "cannot be read: no such file or directory: check the path and its permissions"

WRONG: dict[str, tuple[str, Callable[[Authority, Path], None], str]] = {
    "an authority that is not there": ("ca", _nothing, MISSING),
    "an authority that is no PEM": (
        "ca",
        _text,
        "holds no certificate: give a PEM file with the authority's",
    ),
    "an authority of many megabytes": ("ca", _huge, "has more than 4194304 bytes: give a PEM file"),
    "an authority that is cut short": ("ca", _cut_short, ": give a PEM file that openssl reads"),
    "a certificate that is not there": ("client_cert", _nothing, MISSING),
    "a certificate that is no PEM": (
        "client_cert",
        _text,
        "holds no certificate: give a PEM file with the certificate, its chain, and its key",
    ),
    "a certificate without a key": (
        "client_cert",
        _certificate_alone,
        "holds no private key: give a PEM file with the certificate, its chain, and its key",
    ),
    "an encrypted key": ("client_cert", _encrypted, "is encrypted: write it without a password"),
    "the key of another": (
        "client_cert",
        _of_another,
        "is not that of its first certificate: give the certificate, its chain, and its own key",
    ),
}


@pytest.mark.parametrize(("key", "write", "text"), WRONG.values(), ids=WRONG)
def test_a_file_that_cannot_be_used_is_named_with_its_line(
    tmp_path: Path,
    authority: Authority,
    key: str,
    write: Callable[[Authority, Path], None],
    text: str,
) -> None:
    pem = tmp_path / "named.pem"
    write(authority, pem)
    file = enclave_file(tmp_path, f"{{{key}: {pem}}}")
    done = CliRunner().invoke(command, [str(file)])
    (line,) = done.stdout.splitlines()
    assert done.exit_code == 1
    assert line.startswith(f"{file}:3: forwards[0].tls.{key}: ")
    assert str(pem) in line
    assert line.endswith(text)


def test_an_enclave_does_not_start_with_such_a_file(tmp_path: Path) -> None:
    file = enclave_file(tmp_path, "{ca: /nowhere/ca.pem}")
    done = CliRunner().invoke(main, ["enclave", "--config", str(file)])
    assert done.exit_code == EXIT_INVALID
    assert "forwards[0].tls.ca: /nowhere/ca.pem cannot be read" in done.stderr


def test_a_machine_without_authorities_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    assert ssl.get_default_verify_paths().cafile is None
    done = CliRunner().invoke(command, [str(enclave_file(tmp_path, "true"))])
    assert done.stdout.endswith(
        "enclave.yaml:3: forwards[0].tls: this machine knows no authorities: "
        "add the package ca-certificates, or write ca\n"
    )


INGRESS: dict[str, tuple[str, str]] = {
    "a chain that is not there": (
        "certificate: {{chain: {0}/none, key: {0}/client.pem}}",
        "certificate: {0}/none cannot be read: no such file",
    ),
    "a key that is no key": (
        "certificate: {{chain: {0}/client.pem, key: {0}/authority.pem}}",
        "certificate: {0}/authority.pem holds no private key",
    ),
    "the key of another": (
        "certificate: {{chain: {0}/authority.pem, key: {0}/client.pem}}",
        "certificate: the key in {0}/client.pem is not that of the first certificate in "
        "{0}/authority.pem: give the certificate, its chain, and its own key",
    ),
    "authorities that are not there": (
        "client_ca: {0}/none",
        "client_ca: {0}/none cannot be read: no such file",
    ),
    "authorities that are none": ("client_ca: {0}/enclave.yaml", "holds no certificate"),
}


def ingress_file(path: Path, tls: str) -> Path:
    file = path / "enclave.yaml"
    ingress = "{service: web, to: 'tcp://127.0.0.1:80', tls: {" + tls + "}}"
    file.write_text(f"parent: vsock://3:5000\ningress:\n  - {ingress}\n")
    return file


@pytest.mark.parametrize(("tls", "text"), INGRESS.values(), ids=INGRESS)
def test_a_file_of_ingress_that_cannot_be_used(
    tmp_path: Path, authority: Authority, tls: str, text: str
) -> None:
    authority.issue("client.test").rename(tmp_path / "client.pem")
    file = ingress_file(tmp_path, tls.format(tmp_path))
    done = CliRunner().invoke(command, [str(file)])
    (line,) = done.stdout.splitlines()
    assert done.exit_code == 1
    assert line.startswith(f"{file}:3: ingress[0].tls.")
    assert text.format(tmp_path) in line


def test_files_of_ingress_that_are_right(tmp_path: Path, authority: Authority) -> None:
    pem = authority.issue("web.test")
    tls = f"certificate: {{chain: {pem}, key: {pem}}}, client_ca: {authority.file}"
    done = CliRunner().invoke(command, [str(ingress_file(tmp_path, tls))])
    assert (done.exit_code, done.stdout) == (0, "")


def test_roots_for_an_authority_are_read_too(tmp_path: Path, authority: Authority) -> None:
    file = tmp_path / "enclave.yaml"
    acme = f"{{directory: 'https://a.test/', ca: {tmp_path}/none}}"
    tls = f"{{names: [a.test], certificate: {{acme: {acme}}}}}"
    services = f"[{{service: web, to: 'tcp://127.0.0.1:80', tls: {tls}}}, {{service: a, to: acme}}]"
    file.write_text(f"parent: vsock://3:5000\ningress: {services}\n")

    done = CliRunner().invoke(command, [str(file)])
    assert done.exit_code == 1
    place = f"{file}:2: ingress[0].tls.certificate.acme.ca"
    assert done.stdout.startswith(f"{place}: {tmp_path}/none cannot be read: no such file")

    file.write_text(file.read_text().replace(f"{tmp_path}/none", str(authority.file)))
    assert CliRunner().invoke(command, [str(file)]).exit_code == 0


NOT_THERE = "cannot be read: no such file or directory"
TRUST = {
    "roots that are not there": (
        "kms: {ca: /nowhere/roots.pem}\n",
        f"kms.ca: /nowhere/roots.pem {NOT_THERE}: {KMS_ROOTS}",
    ),
    "roots that are none": (
        "kms: {ca: /dev/null}\n",
        f"kms.ca: /dev/null holds no certificate: {KMS_ROOTS}",
    ),
    "a test root that cannot be made": (
        "attestation: {device: software, root: /nowhere/root.pem}\n",
        "attestation.root: /nowhere/root.pem cannot be made: there is no directory /nowhere: "
        f"{TEST_ROOT}",
    ),
    "a test root that is none": (
        "attestation: {device: software, root: /dev/null}\n",
        f"attestation.root: /dev/null holds no certificate: {TEST_ROOT}",
    ),
    "a root that nothing reads": ("attestation: {root: /nowhere/root.pem}\n", None),
}


@pytest.mark.parametrize(("yaml", "said"), TRUST.values(), ids=TRUST)
def test_files_for_kms_and_the_software_module_are_read(yaml: str, said: str | None) -> None:
    document = parse(f"parent: vsock://3:5000\n{yaml}".encode(), "f")
    wanted = [] if said is None else [f"f:2: {said}"]
    assert [str(each) for each in check_tls_files(document)] == wanted


def test_a_test_root_is_taken_and_one_to_come_too(tmp_path: Path) -> None:
    root = tmp_path / "root.pem"
    text = f"parent: vsock://3:5000\nattestation: {{device: software, root: {root}}}\n"
    document = parse(text.encode(), "f")
    assert list(check_tls_files(document)) == []
    root.write_bytes(write_root(module_root()))
    assert list(check_tls_files(document)) == []
