import base64
import json
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.serialization import Encoding

from tests.support.forged_documents import AT, INSTANCE, PCRS, Forge, pcr_of_instance
from tests.support.nsm_server import attested, module_root
from tests.support.raw_cbor import tagged
from tests.support.real_documents import FOLDER, REAL_DOCUMENTS
from vsockproxy.attestation.software_nsm import SOFTWARE_PCRS
from vsockproxy.cli import attestation_document
from vsockproxy.cli.main import main

VERACRUZ = REAL_DOCUMENTS["veracruz-2022"]
PCR0: str = VERACRUZ.note["pcr0"]
NONCE: str = VERACRUZ.note["nonce_hex"]
SIGNED = ("--at-document-time",)
ZEROS = "00" * 48

FORGE = Forge()


def run(*arguments: str, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(main, ["attestation", *arguments], input=stdin)


def verify(name: str, *arguments: str) -> Result:
    return run("verify", str(REAL_DOCUMENTS[name].path), *arguments)


@pytest.fixture
def forged(tmp_path: Path) -> Path:
    """A document of our own, beside the root that it is by."""
    (tmp_path / "root.pem").write_bytes(FORGE.root_pem())
    path = tmp_path / "document.cbor"
    path.write_bytes(FORGE.document(nonce=b"nonce"))
    return path


OUTCOMES = {
    "base-nitro-validator-2024": None,
    "eternis-bad-signature-2024": "bad_signature",
    "evervault-debug-2022": "debug_mode",
    "evervault-signed-eif-2022": None,
    "fastcrypto-indefinite-map-2025": None,
    "marlin-oyster-mock-root": "untrusted_root",
    "veracruz-2022": None,
}


@pytest.mark.parametrize("name", REAL_DOCUMENTS)
def test_a_real_document_has_the_outcome_of_its_note(name: str) -> None:
    note = REAL_DOCUMENTS[name].note
    reason = OUTCOMES[name]

    result = verify(name, *SIGNED, "--json")

    assert result.exit_code == (0 if reason is None else 1)
    said = json.loads(result.stdout)
    assert (said["verified"], said["reason"]) == (reason is None, reason)
    if reason is None:
        assert said["module_id"] == note["module_id"]
        assert said["timestamp"] == note["timestamp_ms"]
        assert said["digest"] == note["digest"]
        assert {index: value for index, value in said["pcrs"].items() if value != ZEROS} == note[
            "nonzero_pcrs"
        ]
        for field in ("public_key", "user_data", "nonce"):
            assert said[field] == note[f"{field}_hex"]
    else:
        assert "pcrs" not in said
        assert {said[f] for f in ("module_id", "timestamp", "digest", "nonce")} == {None}
        assert not any(value in result.stdout for value in note["nonzero_pcrs"].values())


@pytest.mark.parametrize("name", REAL_DOCUMENTS)
def test_no_real_document_is_valid_now(name: str) -> None:
    result = verify(name)
    assert result.exit_code == 1
    expected = "untrusted_root" if name == "marlin-oyster-mock-root" else "expired"
    assert result.stdout.startswith(f"refused: {expected}: ")


def test_it_runs_as_a_command() -> None:
    command = [str(Path(sys.executable).with_name("vsockproxy")), "attestation", "verify"]
    done = subprocess.run(
        [*command, "-", *SIGNED, "--json", "--pcr", f"0={PCR0}", "--nonce", NONCE],
        input=VERACRUZ.data,
        capture_output=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["verified"] is True

    refused = subprocess.run(
        [*command, str(VERACRUZ.path)], capture_output=True, text=True, timeout=60
    )
    assert (refused.returncode, refused.stderr) == (1, "")
    assert refused.stdout.startswith("refused: expired: cabundle[1]: valid until 2022-11-")


NO_PCR = "warning: no --pcr is given: an enclave of anybody's AWS account would do\n"

VERIFIED: dict[str, tuple[str, tuple[str, ...]]] = {
    "at a time of UTC": ("veracruz-2022", ("--at", "2022-11-09T22:52:01Z")),
    "at a time without a zone": ("veracruz-2022", ("--at", "2022-11-09T22:52:01")),
    "at a time of another zone": ("veracruz-2022", ("--at", "2022-11-10T00:52:01+02:00")),
    "with its PCR0": ("veracruz-2022", (*SIGNED, "--pcr", f"0={PCR0}")),
    "with its PCR0 in capitals": ("veracruz-2022", (*SIGNED, "--pcr", f"0={PCR0.upper()}")),
    "with two of its PCRs": (
        "veracruz-2022",
        (*SIGNED, "--pcr", f"0={PCR0}", "--pcr", f"03={ZEROS}"),
    ),
    "with its nonce": ("veracruz-2022", (*SIGNED, "--nonce", NONCE)),
    "as old as it may be": ("veracruz-2022", ("--at", "2022-11-09T22:53:00Z", "--max-age", "60")),
    "in debug mode": ("evervault-debug-2022", (*SIGNED, "--allow-debug")),
    "in debug mode, expecting zeros": (
        "evervault-debug-2022",
        (*SIGNED, "--allow-debug", "--pcr", f"0={ZEROS}"),
    ),
    "by AWS's root from a file": (
        "veracruz-2022",
        (*SIGNED, "--root", str(FOLDER / "aws-nitro-root-g1.pem")),
    ),
}


@pytest.mark.parametrize("case", VERIFIED)
def test_a_document_is_verified(case: str) -> None:
    name, arguments = VERIFIED[case]
    result = verify(name, *arguments)
    assert (result.exit_code, result.stderr) == (0, "" if "--pcr" in arguments else NO_PCR)
    first, second, *lines = result.stdout.splitlines()
    note = REAL_DOCUMENTS[name].note
    until = datetime.fromisoformat(note["earliest_chain_expiry"])
    assert (first, second) == ("verified", f"module_id: {note['module_id']}")
    assert f"expires_at: {until.isoformat()}" in lines
    assert any(line.startswith("debug mode: ") for line in lines) == note["debug_mode"]


def test_at_its_own_time_a_document_has_no_age() -> None:
    result = verify("veracruz-2022", *SIGNED, "--max-age", "0", "--pcr", f"0={PCR0}")
    assert (result.exit_code, result.stdout.partition("\n")[0]) == (0, "verified")
    assert "--max-age says nothing with --at-document-time" in result.stderr


def test_a_program_that_reads_json_is_not_warned() -> None:
    result = verify("veracruz-2022", *SIGNED, "--json")
    assert (result.exit_code, result.stderr) == (0, "")


def test_a_document_of_a_software_module_is_called_one(tmp_path: Path) -> None:
    (tmp_path / "root.pem").write_bytes(module_root().certificate.public_bytes(Encoding.PEM))
    root = ("--root", str(tmp_path / "root.pem"), "--pcr", f"0={SOFTWARE_PCRS[0].hex()}")
    data = attested()

    result = run("verify", "-", *root, stdin=data)
    assert (result.exit_code, result.stdout.splitlines()[0]) == (0, "verified")
    assert result.stderr == "warning: the document is of a software NSM: it proves nothing\n"

    refused = run("verify", "-", stdin=data)
    assert refused.exit_code == 1
    assert refused.stdout.startswith("refused: untrusted_root: cabundle[0] is not a trusted root")
    assert "it calls itself 'CN=root of a software NSM\\\\, for tests only" in refused.stdout
    assert refused.stderr == "for a test root, or one of another partition: --root FILE\n"
    assert run("verify", "-", "--json", stdin=data).stderr == ""


def test_what_is_zero_is_one_line_and_what_is_text_is_shown_as_such(forged: Path) -> None:
    zeros = {number: bytes(48) for number in (16, 18)}
    forged.write_bytes(
        FORGE.document(pcrs={**PCRS, **zeros}, user_data=b"tls-key v1", nonce=b"\x00\xff")
    )
    shown = run("verify", str(forged), *SIGNED, "--root", str(forged.with_name("root.pem"))).stdout

    lines = shown.splitlines()
    assert f"user_data: {b'tls-key v1'.hex()} ('tls-key v1')" in lines
    assert "nonce: 00ff" in lines
    assert [line for line in lines if line.startswith("zeros")] == [
        "zeros: PCR3, PCR5-PCR16, PCR18"
    ]
    assert ZEROS not in shown
    assert f"PCR0: {PCRS[0].hex()}" in lines


def test_the_time_of_a_document_is_shown_for_people_too() -> None:
    shown = verify("veracruz-2022", *SIGNED).stdout
    assert "timestamp: 1668034320696 (2022-11-09T22:52:00.696+00:00)\n" in shown


REFUSED: dict[str, tuple[str, tuple[str, ...], str]] = {
    "another PCR0": (
        "veracruz-2022",
        ("--pcr", f"0={'11' * 48}"),
        f"pcr_mismatch: PCR0 is another than the one expected, {'11' * 48}\n",
    ),
    "a PCR that is not there": ("veracruz-2022", ("--pcr", f"16={ZEROS}"), "pcr_missing: PCR16"),
    "another nonce": (
        "veracruz-2022",
        ("--nonce", "00"),
        f"nonce_mismatch: nonce is another than the one expected: {NONCE}, not 00\n",
    ),
    "no nonce": ("fastcrypto-indefinite-map-2025", ("--nonce", "00"), "nonce_mismatch"),
    "debug mode": ("evervault-debug-2022", (), "debug_mode"),
    "debug mode with a policy": ("evervault-debug-2022", ("--pcr", f"1={ZEROS}"), "debug_mode"),
    "a bad signature in debug mode": (
        "eternis-bad-signature-2024",
        ("--allow-debug",),
        "bad_signature",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_document_is_refused(case: str) -> None:
    name, arguments, reason = REFUSED[case]
    result = verify(name, *SIGNED, *arguments)
    assert (result.exit_code, result.stderr) == (1, "")
    assert result.stdout.startswith(f"refused: {reason}")
    assert result.stdout.count("\n") == 1
    assert PCR0 not in result.stdout


def test_times_and_ages_are_kept(forged: Path) -> None:
    options = (str(forged), "--root", str(forged.with_name("root.pem")), "--max-age", "60")

    def at(seconds: float) -> str:
        time = (AT + timedelta(seconds=seconds)).isoformat()
        return run("verify", *options, "--at", time).stdout.partition(":")[2].split(":")[0].strip()

    assert at(61) == "too_old"
    assert at(-61) == "not_yet_valid"
    assert at(60.5) == "too_old"


def test_another_root_may_stand_beside_its_key(forged: Path) -> None:
    root = forged.with_name("both.pem")
    root.write_bytes(FORGE.root_pem(with_key=True))

    result = run("verify", str(forged), *SIGNED, "--root", str(root), "--json")

    assert result.exit_code == 0
    assert json.loads(result.stdout)["nonce"] == b"nonce".hex()
    assert run("verify", str(forged), *SIGNED).stdout.startswith("refused: untrusted_root")
    assert verify("veracruz-2022", *SIGNED, "--root", str(root)).exit_code == 1


FORMS = {
    "as it is": VERACRUZ.data,
    "with its tag": tagged(18, VERACRUZ.data),
    "in base64": base64.b64encode(VERACRUZ.data),
    "in base64 of lines": base64.encodebytes(VERACRUZ.data),
    "in base64 with spaces around": b"\r\n  " + base64.b64encode(VERACRUZ.data) + b"\n\n",
}


@pytest.mark.parametrize("form", FORMS)
def test_standard_input_has_a_document_in_each_of_its_forms(form: str) -> None:
    result = run("verify", "-", *SIGNED, "--pcr", f"0={PCR0}", stdin=FORMS[form])
    assert (result.exit_code, result.stderr) == (0, "")


NO_DOCUMENTS = {
    "nothing": (b"", "truncated"),
    "a text": (b"hello, world\n", "not_cose_sign1"),
    "base64 of something else": (base64.b64encode(b"hello, world"), "not_cose_sign1"),
    "cut base64": (base64.b64encode(VERACRUZ.data)[:-1], "not_cose_sign1"),
    "PEM": (FORGE.root_pem(), "not_cose_sign1"),
    "hex": (VERACRUZ.data.hex().encode(), "not_cose_sign1"),
    "a cut document": (VERACRUZ.data[:1000], "truncated"),
    "one and a newline": (VERACRUZ.data + b"\n", "trailing_bytes"),
    "endless zeros": (bytes(200_000), "too_large"),
    "too much base64": (b"A" * 200_000, "too_large"),
    "a tag alone": (b"\xd2", "truncated"),
    "spaces that end in something else": (b"A" + b" " * 60_000 + b"!", "too_large"),
}


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
@pytest.mark.parametrize("command", [("show",), ("verify",), ("verify", *SIGNED)])
@pytest.mark.parametrize("case", NO_DOCUMENTS)
def test_what_is_no_document_is_refused(case: str, command: tuple[str, ...], as_json: bool) -> None:
    data, reason = NO_DOCUMENTS[case]
    result = run(command[0], "-", *command[1:], *(["--json"] if as_json else []), stdin=data)
    assert (result.exit_code, result.stderr) == (1, "")
    if as_json:
        said: dict[str, Any] = json.loads(result.stdout)
        assert (said["verified"], said["reason"]) == (False, reason)
    else:
        assert result.stdout.startswith(f"refused: {reason}: ")


def test_a_document_in_hexadecimal_digits_is_told_from_other_bytes() -> None:
    result = run("verify", "-", stdin=VERACRUZ.data.hex().encode() + b"\n")
    assert "these are hexadecimal digits: write the bytes, as xxd -r -p does" in result.stdout


def test_odd_certificates_bring_no_warnings_of_the_library(tmp_path: Path) -> None:
    data = bytearray(VERACRUZ.data)
    serial = data.index(b"\x02\x10", data.index(b"certificate")) + 2
    data[serial] |= 0x80  # a negative number
    file = tmp_path / "document.cbor"
    file.write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-m", "vsockproxy", "attestation", "verify", str(file), *SIGNED],
        capture_output=True,
        text=True,
    )
    assert done.stdout == "refused: malformed_certificate: certificate: no DER certificate\n"
    assert (done.returncode, done.stderr) == (1, "")


D = str(VERACRUZ.path)
UNUSABLE: dict[str, tuple[tuple[str, ...], str]] = {
    "no file": ((), "Missing argument 'FILE|-'"),
    "a file that is not there": (("nowhere.cbor",), "cannot read 'nowhere.cbor': No such file"),
    "a folder": (("/",), "cannot read '/': Is a directory"),
    "a name with a null": (("a\0b",), "cannot read"),
    "two times": ((D, *SIGNED, "--at", "2022-11-09T22:52:00Z"), "are two times: give one"),
    "no time": ((D, "--at", "yesterday"), "'yesterday' is no time: write 2026-01-31T12"),
    "a time before all": ((D, "--at", "0001-01-01T00:00:00+14:00"), "is no time"),
    "no root": ((D, "--root", "nowhere.pem"), "--root: cannot read 'nowhere.pem'"),
    "a document for a root": (
        (D, "--root", "root.cbor"),
        "--root 'root.cbor': no PEM certificate that can be read",
    ),
    "PCR0 of zeros": ((D, "--pcr", f"0={ZEROS}"), "every enclave in debug mode"),
    "a short PCR": ((D, "--pcr", "0=00ff"), "PCR0: 2 bytes are no measurement"),
    "half a byte": ((D, "--pcr", f"0={PCR0[1:]}"), "is no hex: write two digits"),
    "no hex": ((D, "--pcr", "0=" + "zz" * 48), "is no hex"),
    "a PCR without a number": ((D, "--pcr", PCR0), "write N=HEX"),
    "a PCR without a value": ((D, "--pcr", "0="), "write N=HEX"),
    "a PCR below zero": ((D, "--pcr", f"-1={PCR0}"), "write N=HEX"),
    "PCR32": ((D, "--pcr", f"32={PCR0}"), "PCR32: there are PCR0 to PCR31"),
    "a PCR twice": ((D, "--pcr", f"0={PCR0}", "--pcr", f"00={PCR0}"), "PCR0 is given twice"),
    "an empty nonce": ((D, "--nonce", ""), "'' is no hex"),
    "a nonce in base64": ((D, "--nonce", "xnjIYTXe"), "is no hex"),
    "a nonce with spaces": ((D, "--nonce", "00 11"), "is no hex"),
    "an age in minutes": ((D, "--max-age", "5m"), "'5m' is not a valid float"),
    "an age below zero": ((D, "--max-age", "-1"), "is not in the range x>=0"),
    "no number for an age": ((D, "--max-age", "nan"), "a document cannot be nan seconds old"),
    "an option of another command": ((D, "--config", "x"), "No such option"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_what_cannot_be_used_is_said_and_nothing_else(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("root.cbor").write_bytes(VERACRUZ.data)
    arguments, text = UNUSABLE[case]
    result = run("verify", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert text in " ".join(result.stderr.split())


ONE_LINE = {
    "no document": (("nowhere.cbor",), "cannot read 'nowhere.cbor': No such file or directory"),
    "no root": (
        (D, "--root", "nowhere.pem"),
        "--root: cannot read 'nowhere.pem': No such file or directory",
    ),
    "no certificate": ((D, "--root", "/dev/null"), "--root '/dev/null': no PEM certificate that"),
}


@pytest.mark.parametrize("case", ONE_LINE)
def test_a_file_that_cannot_be_used_is_one_line(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, text = ONE_LINE[case]
    result = run("verify", *arguments)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert result.stderr.startswith(f"Error: {text}")


def test_show_needs_a_file_too() -> None:
    assert run("show", "nowhere.cbor").exit_code == 2


def test_what_is_shown_is_marked_as_unverified() -> None:
    data = FORGE.document(module_id="\x1b[2J-enc0", pcrs={4: pcr_of_instance(INSTANCE)})

    result = run("show", "-", stdin=data)

    assert result.exit_code == 0
    first, *lines = result.stdout.splitlines()
    assert first == "unverified: anybody may have written this"
    assert "module_id: '\\x1b[2J-enc0'" in lines
    assert f"PCR4: {pcr_of_instance(INSTANCE).hex()}" in lines
    assert "nonce: none" in lines


def test_what_is_shown_as_json_is_marked_as_unverified() -> None:
    result = run("show", "-", "--json", stdin=FORGE.document())

    said = json.loads(result.stdout)
    assert result.exit_code == 0
    assert (said["verified"], said["reason"]) == (False, "unverified")
    assert said["pcrs"] == {str(number): value.hex() for number, value in PCRS.items()}


def test_a_document_that_names_no_time_of_this_world_is_refused() -> None:
    result = run("verify", "-", *SIGNED, stdin=FORGE.document(timestamp=2**64 - 1))
    assert (result.exit_code, result.stdout[:21]) == (1, "refused: out_of_range")


def test_without_the_library_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attestation_document, "find_spec", lambda name: None)
    for command in ("show", "verify"):
        result = run(command, D)
        assert result.exit_code == 2
        assert "pip install '.[trust]'" in result.stderr
