"""The programs that docs/client.md shows run as they are, in a sandbox with a web server."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.sandbox.ingress import ask, sandbox_behind
from tests.sandbox.sandboxes import run_sandbox
from tests.support.certificates import Authority
from tests.support.kms_answers import PLAINTEXT, kms_proxy
from tests.support.tls_origin import Origin
from vsockproxy.cli.main import main

TEXT = (Path(__file__).parents[2] / "docs" / "client.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
PROGRAMS = [program for program in SHOWN if "open_stream" in program]
LISTENING = [program for program in SHOWN if "listen(" in program]
ATTESTING = [program for program in SHOWN if "attestation_document" in program]
CALLING_KMS = [program for program in SHOWN if "kms.decrypt" in program]
INGRESS = re.findall(r"^```yaml\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


@pytest.fixture
def allowed(authority: Authority, namespaces: None) -> Iterator[tuple[str, str]]:
    del namespaces
    with Origin(authority.context("example.com")) as origin:
        yield "--allow", f"example.com:443={origin.address}"


def test_all_of_them_are_run() -> None:
    assert len(SHOWN) == sum(map(len, (PROGRAMS, LISTENING, ATTESTING, CALLING_KMS)))
    assert len(LISTENING) == len(INGRESS) == len(ATTESTING) == len(CALLING_KMS) == 1


def test_there_is_one_for_each_loop() -> None:
    assert ["asyncio.run(main())" in program for program in PROGRAMS] == [True, False]
    assert ["trio.run(main)" in program for program in PROGRAMS] == [False, True]


@pytest.mark.parametrize("program", PROGRAMS, ids=["asyncio", "trio"])
def test_a_program_runs_as_it_is_shown(
    program: str, allowed: tuple[str, str], trust: Mapping[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "fetch.py"
    file.write_text(program)
    done = run_sandbox(allowed, [sys.executable, str(file)], trust)
    assert done.status == 0, done.stderr
    head, _, rest = done.stdout.partition("hello from example.com, over TLSv1.3\n")
    assert head.startswith("HTTP/1.")
    assert rest == ("\nnot_listed\n" if "refused.reason" in program else "")


def test_a_program_listens_as_it_is_shown(namespaces: None, tmp_path: Path) -> None:
    del namespaces
    file = tmp_path / "serve.py"
    file.write_text(LISTENING[0])
    with sandbox_behind(
        tmp_path, INGRESS[0], [sys.executable, str(file)], {"service": "web"}
    ) as port:
        client, answer = ask(port, b"hello\n")
        assert answer == f"{client} said hello\n".encode()


def test_a_program_is_attested_as_it_is_shown(namespaces: None, tmp_path: Path) -> None:
    del namespaces
    program, enclave = tmp_path / "attest.py", tmp_path / "enclave.yaml"
    program.write_text(ATTESTING[0])
    root, document = tmp_path / "root.pem", tmp_path / "document.cbor"
    enclave.write_text(f"parent: vsock://3:5000\nattestation: {{device: software, root: {root}}}\n")
    done = run_sandbox(
        ("--config-enclave", str(enclave)),
        ["sh", "-c", f"{sys.executable} {program} c0ffee > {document}"],
    )
    assert done.status == 0, done.stderr
    assert '"event": "software_nsm"' in done.stderr
    verify = ("attestation", "verify", str(document), "--root", str(root), "--nonce", "c0ffee")
    verified = CliRunner().invoke(main, verify)
    assert verified.stdout.startswith("verified\n"), verified.output
    assert f"user_data: {b'up to 1024 bytes'.hex()}" in verified.stdout


def test_a_program_calls_kms_as_it_is_shown(tmp_path: Path) -> None:
    file = tmp_path / "calls.py"
    file.write_text(CALLING_KMS[0])
    with kms_proxy() as proxy:
        variables = {"AWS_ENDPOINT_URL_KMS": proxy.url, "AWS_REGION": "eu-west-1"}
        done = subprocess.run(
            [sys.executable, str(file)],
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert (done.returncode, done.stderr) == (0, "")
    ciphertext = b"ciphertext".hex()
    assert done.stdout == f"a key of {len(PLAINTEXT)} bytes; to keep: {ciphertext}\nTrue\n"
    asked = [(each.operation, each.fields["EncryptionContext"]) for each in proxy.received]
    assert asked == [
        ("GenerateDataKey", {"purpose": "backups"}),
        ("Decrypt", {"purpose": "backups"}),
    ]
