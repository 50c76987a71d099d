import socket
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from vsockproxy.cli.explain import command

PARENT = """\
listen: vsock://any:5000
allowlist:
  - {address: public.test, port: 443}
  - {address: inside.test, port: 443}
  - {address: opened.test, port: 443, private: true}
  - {address: localhost, port: 443, private: true}
  - {address: missing.invalid, port: 443}
  - {address: 127.0.0.0/8, port: 80}
resolver:
  hosts:
    public.test: ["8.8.8.8", "2600::1"]
    inside.test: ["10.0.3.7"]
    opened.test: ["10.0.3.7"]
enclaves:
  - {cid: 16, allowlist: [{address: web.test, port: 443}]}
"""
ENCLAVE = """\
parent: vsock://3:5000
allowlist:
  - {address: public.test, port: 443}
"""
PCR0, OTHER_PCR0 = "ab" * 48, "cd" * 48
ATTESTED = f"""\
listen: vsock://any:5000
allowlist:
  - {{address: public.test, port: 443}}
enclaves:
  - {{name: web, pcrs: {{0: {PCR0}}}, allowlist: [{{address: web.test, port: 443}}]}}
  - {{cid: 17, allowlist: [{{address: plain.test, port: 443}}]}}
"""
AWS = """\
allowlist:
- {address: inside.test, port: 443}
- {address: 10.0.0.1, port: 443}
"""


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {
        "parent.yaml": PARENT,
        "enclave.yaml": ENCLAVE,
        "attested.yaml": ATTESTED,
        "vsock-proxy.yaml": AWS,
        "bad.yaml": "listen: vsock://any:5000\nallowlist:\n  - {address: a.test}\n",
    }.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)


P, E = ("--config", "parent.yaml"), ("--config", "enclave.yaml")
A = ("--config", "attested.yaml")


@pytest.mark.parametrize(
    ("arguments", "status", "first_line"),
    [
        pytest.param((*P, "public.test", "443"), 0, "allowed", id="a listed name"),
        pytest.param((*P, "PUBLIC.test.", "443"), 0, "allowed", id="a listed name, disguised"),
        pytest.param((*P, "inside.test", "443"), 0, "allowed", id="unresolved, so not judged"),
        pytest.param((*P, "other.test", "443"), 1, "refused: not_listed", id="an unlisted name"),
        pytest.param((*P, "public.test", "80"), 1, "refused: port_not_listed", id="another port"),
        pytest.param(
            (*P, "127.0.0.1", "80"), 1, "refused: address_private", id="a literal is judged"
        ),
        pytest.param((*P, "--resolve", "public.test", "443"), 0, "allowed", id="a fixed host"),
        pytest.param(
            (*P, "--resolve", "inside.test", "443"),
            1,
            "refused: address_private",
            id="a fixed host with a private address",
        ),
        pytest.param(
            (*P, "--resolve", "opened.test", "443"), 0, "allowed", id="opened by its rule"
        ),
        pytest.param((*P, "--cid", "16", "web.test", "443"), 0, "allowed", id="an enclave's list"),
        pytest.param(
            (*P, "--cid", "16", "public.test", "443"),
            1,
            "refused: not_listed",
            id="an enclave's list replaces the file's",
        ),
        pytest.param(
            (*P, "--cid", "3", "public.test", "443"), 1, "refused: not_listed", id="a low CID"
        ),
        pytest.param(
            (*A, "--pcr", f"0={PCR0}", "web.test", "443"), 0, "allowed", id="attested PCRs"
        ),
        pytest.param(
            (*A, "--cid", "20", "--pcr", f"0={PCR0.upper()}", "web.test", "443"),
            0,
            "allowed",
            id="attested PCRs of a CID",
        ),
        pytest.param(
            (*A, "--pcr", f"0={OTHER_PCR0}", "--pcr", f"8={PCR0}", "web.test", "443"),
            1,
            "refused: attestation_required",
            id="other PCRs",
        ),
        pytest.param(
            (*A, "--cid", "20", "public.test", "443"),
            1,
            "refused: attestation_required",
            id="a CID that would have to attest",
        ),
        pytest.param((*A, "--cid", "17", "plain.test", "443"), 0, "allowed", id="or need not"),
        pytest.param(
            (*A, "--cid", "3", "public.test", "443"), 1, "refused: not_listed", id="nor may connect"
        ),
        pytest.param((*E, "public.test", "443"), 0, "allowed", id="the enclave's side alone"),
        pytest.param((*P, *E, "public.test", "443"), 0, "allowed", id="both sides allow"),
        pytest.param(
            (*P, *E, "opened.test", "443"), 1, "refused: not_listed", id="one of two sides refuses"
        ),
        pytest.param(
            ("--config", "vsock-proxy.yaml", "10.0.0.1", "443"), 0, "allowed", id="AWS's file"
        ),
    ],
)
def test_outcome(arguments: tuple[str, ...], status: int, first_line: str) -> None:
    result = run(*arguments)
    assert result.stdout.splitlines()[0] == first_line
    assert result.exit_code == status
    assert result.stderr == ""


def test_the_file_s_line_is_named() -> None:
    lines = run(*P, "--resolve", "inside.test", "443").stdout.splitlines()
    assert lines[1:4] == [
        "rule: inside.test port 443 at parent.yaml:4",
        "side: parent (parent.yaml): refused: address_private",
        "guard: inside.test resolved to 10.0.3.7, private (a VPC endpoint?): "
        "add private: true at parent.yaml:4",
    ]


def test_the_enclave_comes_first_whatever_the_order_of_files() -> None:
    for files in ((*P, *E), (*E, *P)):
        sides = [
            line
            for line in run(*files, "public.test", "443").stdout.splitlines()
            if line.startswith("side:")
        ]
        assert sides == [
            "side: enclave (enclave.yaml): allowed",
            "side: parent (parent.yaml): allowed",
        ]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        pytest.param((*P, "a..b", "443"), "single dots", id="a host with a doubled dot"),
        pytest.param((*P, "0x7f.1", "443"), "four decimal numbers", id="a hexadecimal host"),
        pytest.param((*P, "[::1]", "443"), "brackets", id="brackets"),
        pytest.param((*P, "public.test", "0"), "1<=x<=65535", id="port 0"),
        pytest.param((*P, "public.test", "https"), "integer", id="a port's name"),
        pytest.param((*P, "public.test"), "PORT", id="no port"),
        pytest.param(("public.test", "443"), "--config", id="no file"),
        pytest.param((*P, *P, "public.test", "443"), "second file", id="one side twice"),
        pytest.param(
            (*P, "--config", "vsock-proxy.yaml", "public.test", "443"),
            "second file",
            id="the parent's file and AWS's",
        ),
        pytest.param((*E, "--cid", "16", "public.test", "443"), "--cid", id="a CID in an enclave"),
        pytest.param(
            (*E, "--pcr", f"0={PCR0}", "public.test", "443"), "--pcr", id="PCRs in an enclave"
        ),
        pytest.param((*A, "--pcr", "0", "web.test", "443"), "--pcr", id="a PCR without value"),
        pytest.param((*A, "--pcr", f"32={PCR0}", "web.test", "443"), "PCR32", id="PCR32"),
        pytest.param((*A, "--pcr", "0=abcd", "web.test", "443"), "2 bytes", id="a short PCR"),
        pytest.param(("--config", "no.yaml", "a.test", "443"), "no.yaml", id="no such file"),
        pytest.param(
            ("--config", "bad.yaml", "a.test", "443"),
            "bad.yaml:3: allowlist[0]: neither port nor ports",
            id="an invalid file",
        ),
    ],
)
def test_unusable_input(arguments: tuple[str, ...], told: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert told in result.stderr


def test_without_a_fixed_host_the_system_resolves() -> None:
    result = run(*P, "--resolve", "localhost", "443")
    assert result.exit_code == 0
    assert "loopback, opened by the rule" in result.stdout


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        pytest.param(socket.EAI_NONAME, "no_such_name", id="no such name"),
        pytest.param(socket.EAI_AGAIN, "lookup_failed", id="no answer from any server"),
    ],
)
def test_a_lookup_that_fails_is_a_refusal(
    monkeypatch: pytest.MonkeyPatch, error: int, reason: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(error, "the system's words")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    result = run(*P, "--resolve", "missing.invalid", "443")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[0] == f"refused: {reason}"
    assert "guard: not asked, missing.invalid: the system's words" in result.stdout
