"""ClientHellos: made by OpenSSL, and put together by hand where OpenSSL would not make them."""

import contextlib
import datetime
import ipaddress
import pathlib
import ssl
import tempfile

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

SERVER_NAME = 0
GREASE = 0x5A5A
PADDING = 21
ENCRYPTED_CLIENT_HELLO = 0xFE0D


def openssl_hello(
    server_name: str | None,
    version: ssl.TLSVersion,
    *,
    alpn: tuple[str, ...] = (),
) -> bytes:
    """The first flight of a TLS client of the standard library."""
    context = _client_context(version)
    if alpn:
        context.set_alpn_protocols(alpn)
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=server_name)
    _step(client)
    return outgoing.read()


def openssl_resumption_hello(
    server_name: str, version: ssl.TLSVersion, *, names_in_certificate: int = 1
) -> bytes:
    """A first flight with a session ticket; the ticket holds the client's certificate."""
    with tempfile.TemporaryDirectory() as folder:
        pem = pathlib.Path(folder) / "pair.pem"
        pem.write_bytes(_key_pair(names_in_certificate))
        client_context = _client_context(version)
        client_context.load_cert_chain(pem)
        server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server_context.load_cert_chain(pem)
        server_context.load_verify_locations(pem)
        server_context.verify_mode = ssl.CERT_REQUIRED
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server, server_hostname=server_name)
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        _step(client)
        _step(server)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.read(1)  # TLS 1.3 sends tickets after the handshake.
    assert client.session is not None
    assert client.session.has_ticket
    outgoing = ssl.MemoryBIO()
    resumed = client_context.wrap_bio(
        ssl.MemoryBIO(), outgoing, server_hostname=server_name, session=client.session
    )
    _step(resumed)
    return outgoing.read()


def vector(length_bytes: int, content: bytes) -> bytes:
    return len(content).to_bytes(length_bytes) + content


def extension(kind: int, content: bytes) -> bytes:
    return kind.to_bytes(2) + vector(2, content)


def server_name_extension(*names: bytes, kind: int = 0) -> bytes:
    entries = b"".join(bytes([kind]) + vector(2, name) for name in names)
    return extension(SERVER_NAME, vector(2, entries))


def hello_body(
    extensions: bytes | None,
    *,
    version: int = 0x0303,
    session_id: bytes = bytes(32),
    cipher_suites: bytes = b"\x13\x01",
    compression_methods: bytes = b"\x00",
) -> bytes:
    body = (
        version.to_bytes(2)
        + bytes(32)
        + vector(1, session_id)
        + vector(2, cipher_suites)
        + vector(1, compression_methods)
    )
    return body if extensions is None else body + vector(2, extensions)


def message(body: bytes, kind: int = 1) -> bytes:
    return bytes([kind]) + vector(3, body)


def records(content: bytes, most_bytes: int = 16_384, version: int = 0x0301) -> bytes:
    """`content` as handshake records of at most `most_bytes` each."""
    return b"".join(
        b"\x16" + version.to_bytes(2) + vector(2, content[start : start + most_bytes])
        for start in range(0, len(content), most_bytes)
    )


def hello(extensions: bytes | None) -> bytes:
    return records(message(hello_body(extensions)))


def hello_for(name: bytes) -> bytes:
    return hello(server_name_extension(name))


def _client_context(version: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    return context


def _step(connection: ssl.SSLObject) -> None:
    with contextlib.suppress(ssl.SSLWantReadError):
        connection.do_handshake()


def _key_pair(names: int) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "example.com")])
    now = datetime.datetime.now(datetime.UTC)
    alternatives: list[x509.GeneralName] = [
        x509.DNSName(f"name-{number:08}.example.com") for number in range(names)
    ]
    alternatives.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
