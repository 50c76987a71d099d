"""What the programs in a sandbox talk to, and a sandbox for each way in, which they share."""

import hashlib
import os
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.sandbox.clients.client import SOURCES, Places
from tests.sandbox.destinations import LITERAL_V6, NO_TLS, Destination, write_files
from tests.sandbox.sandboxes import (
    GIT_VARIABLES,
    NOT_PERMITTED,
    Sandbox,
    SandboxWith,
    is_there,
    open_sandbox,
    run_sandbox,
)
from tests.sandbox.trust import trust_files
from tests.sandbox.ways import Way
from tests.support.certificates import Authority
from tests.support.compiling import compile_program
from tests.support.postgres_like import postgres_like
from tests.support.smtp_like import smtp_like
from tests.support.tls_origin import Origin

HOSTS = ("origin.test", "kms.test", "sts.test")


@pytest.fixture(scope="session")
def namespaces() -> None:
    """Skips where no sandbox can be made, with the reason that `vsockproxy sandbox` gives."""
    probe = run_sandbox([], ["true"])
    if probe.status == 1 and NOT_PERMITTED.match(probe.stderr):
        pytest.skip(f"no sandbox here: {probe.stderr}")


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("repositories")


@pytest.fixture(scope="session")
def origin(authority: Authority, repositories: Path) -> Iterator[Origin]:
    with Origin(authority.context(*HOSTS), repositories) as server:
        yield server


@pytest.fixture(scope="session")
def digest(repositories: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of the large file in project.git, a repository that the origin offers."""
    large = os.urandom(1 << 20)  # does not get smaller in a pack
    if is_there("git"):
        files = tmp_path_factory.mktemp("project")
        (files / "small").write_text("small\n")
        (files / "large").write_bytes(large)
        variables = {**os.environ, **GIT_VARIABLES}
        for arguments in (
            ["init", "-q"],
            ["add", "."],
            ["commit", "-q", "-m", "first"],
            ["clone", "-q", "--bare", ".", str(repositories / "project.git")],
        ):
            subprocess.run(["git", *arguments], cwd=files, env=variables, check=True)
    return hashlib.sha256(large).hexdigest()


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the programs that are compiled."""
    directory = tmp_path_factory.mktemp("built")
    if is_there("musl-gcc"):
        source = SOURCES / "tcp_client.c"
        compile_program("musl-gcc", source, directory / "static", "-static")
        compile_program("musl-gcc", source, directory / "dynamic")
    return directory


@pytest.fixture
def places(
    authority: Authority,
    digest: str,
    built: Path,
    tmp_path: Path,
) -> Places:
    return Places(
        **trust_files(authority, tmp_path), built=str(built), scratch=str(tmp_path), digest=digest
    )


@pytest.fixture(scope="session")
def trust(authority: Authority) -> Mapping[str, str]:
    """The variables by which curl, the AWS SDKs and OpenSSL learn whom to trust."""
    names = ("AWS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
    return dict.fromkeys(names, str(authority.file))


@pytest.fixture(scope="session")
def mails() -> Iterator[tuple[int, list[bytes]]]:
    with smtp_like() as server:
        yield server


@pytest.fixture(scope="session")
def destinations(
    authority: Authority, origin: Origin, mails: tuple[int, list[bytes]]
) -> Iterator[Sequence[Destination]]:
    """What programs may reach, with a server for each on loopback."""
    with ExitStack() as stack:
        plain = stack.enter_context(Origin()).address
        closed = stack.enter_context(socket.socket())
        closed.bind(("127.0.0.1", 0))  # and it does not listen
        database = stack.enter_context(postgres_like(authority.context("db.test")))
        yield [
            *(Destination(host, 443, origin.address) for host in HOSTS),
            Destination("plain.test", 80, plain, NO_TLS),
            Destination(LITERAL_V6, 80, plain, {**NO_TLS, "private": True}),
            Destination("plain-by-mistake.test", 80, plain),
            Destination("away.test", 443, f"127.0.0.1:{closed.getsockname()[1]}"),
            Destination("db.test", 5432, f"127.0.0.1:{database}", NO_TLS),
            Destination("db-by-mistake.test", 5432, f"127.0.0.1:{database}"),
            Destination("mail.test", 25, f"127.0.0.1:{mails[0]}", NO_TLS),
            Destination("enclave-only.test", 443, None),
            Destination("enclave-only-mail.test", 25, None, NO_TLS),
        ]


@pytest.fixture(scope="session")
def sandbox_with(
    namespaces: None,
    destinations: Sequence[Destination],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[SandboxWith]:
    """Gives the sandbox of a way in, which is started when a test first asks for it."""
    del namespaces
    opened: dict[Way, Sandbox] = {}
    with ExitStack() as stack:

        def get(way: Way) -> Sandbox:
            if way not in opened:
                directory = tmp_path_factory.mktemp(way)
                options = write_files(directory, destinations, way)
                opened[way] = stack.enter_context(open_sandbox(*options, directory=directory))
            return opened[way]

        yield get
