"""What the programs in a sandbox talk to, and one sandbox that they share."""

import json
import os
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox.sandboxes import (
    GIT_VARIABLES,
    NOT_PERMITTED,
    Sandbox,
    need,
    open_sandbox,
    run_sandbox,
)
from tests.support.certificates import Authority
from tests.support.postgres_like import postgres_like
from tests.support.smtp_like import smtp_like
from tests.support.tls_origin import Origin

HOSTS = ("origin.test", "kms.test", "sts.test")
NO_TLS = {"require_tls": False}


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
def project(repositories: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a repository that the origin offers as project.git."""
    need("git")
    files = tmp_path_factory.mktemp("project")
    (files / "small").write_text("small\n")
    (files / "large").write_bytes(os.urandom(1 << 20))  # does not get smaller in a pack
    variables = {**os.environ, **GIT_VARIABLES}
    for arguments in (
        ["init", "-q"],
        ["add", "."],
        ["commit", "-q", "-m", "first"],
        ["clone", "-q", "--bare", ".", str(repositories / "project.git")],
    ):
        subprocess.run(["git", *arguments], cwd=files, env=variables, check=True)
    return files


@pytest.fixture(scope="session")
def trust(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """The variables by which programs are told to trust an authority, with their values."""
    names = ("AWS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "REQUESTS_CA_BUNDLE")
    settings = tmp_path_factory.mktemp("wget") / "wgetrc"
    settings.write_text(f"ca_certificate = {authority.file}\n")
    trusted = dict.fromkeys((*names, "SSL_CERT_FILE"), str(authority.file))
    return {**trusted, "WGETRC": str(settings)}


@pytest.fixture(scope="session")
def mails() -> Iterator[tuple[int, list[bytes]]]:
    with smtp_like() as server:
        yield server


@pytest.fixture(scope="session")
def sandbox(
    namespaces: None,
    authority: Authority,
    origin: Origin,
    mails: tuple[int, list[bytes]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Sandbox]:
    """A sandbox with files for both sides."""
    del namespaces
    directory = tmp_path_factory.mktemp("sandbox")
    with ExitStack() as stack:
        plain = stack.enter_context(Origin())
        closed = stack.enter_context(socket.socket())
        closed.bind(("127.0.0.1", 0))  # and it does not listen
        database = stack.enter_context(postgres_like(authority.context("db.test")))
        listed: list[tuple[str, int, str, dict[str, Any]]] = [
            *((host, 443, origin.address, {}) for host in HOSTS),
            ("plain.test", 80, plain.address, NO_TLS),
            ("plain-by-mistake.test", 80, plain.address, {}),
            ("away.test", 443, f"127.0.0.1:{closed.getsockname()[1]}", {}),
            ("db.test", 5432, f"127.0.0.1:{database}", NO_TLS),
            ("db-by-mistake.test", 5432, f"127.0.0.1:{database}", {}),
            ("mail.test", 25, f"127.0.0.1:{mails[0]}", NO_TLS),
        ]
        parent = {
            "listen": "vsock://any:5000",
            "allowlist": [
                {"address": host, "port": port, "private": True, "dial": dial}
                for host, port, dial, _ in listed
            ],
        }
        enclave = {
            "parent": "vsock://3:5000",
            "allowlist": [
                *({"address": host, "port": port, **more} for host, port, _, more in listed),
                {"address": "enclave-only.test", "port": 443},
                {"address": "enclave-only-mail.test", "port": 25, **NO_TLS},
            ],
            "forwards": [
                {"listen": "tcp://127.0.0.1:5432", "to": "db.test:5432"},
                {"listen": "tcp://127.0.0.1:5433", "to": "db-by-mistake.test:5432"},
                {"listen": "tcp://127.0.0.1:2525", "to": "mail.test:25"},
                {"listen": "tcp://127.0.0.1:2526", "to": "enclave-only-mail.test:25"},
            ],
        }
        options = []
        for side, config in {"parent": parent, "enclave": enclave}.items():
            file = directory / f"{side}.yaml"
            file.write_text(json.dumps(config, indent=1))  # JSON is YAML
            options += [f"--config-{side}", str(file)]
        yield stack.enter_context(open_sandbox(*options, directory=directory))
