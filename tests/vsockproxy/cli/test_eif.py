import json
import stat
import sys
from io import BytesIO
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.support.eif_files import (
    PLAIN,
    SIGNATURE,
    Signer,
    make_eif,
    pcrs_of,
    read_eif,
    signature_section,
)
from vsockproxy.attestation.eif_writer import EifWriter, UnusableInput
from vsockproxy.cli.eif import command, write_image

SIGNER = Signer()
SIGNED = (*PLAIN, (SIGNATURE, SIGNER.section()))
FORGED = (*PLAIN, (SIGNATURE, signature_section(SIGNER.pem, Signer().cose(pcrs_of(PLAIN)[0]))))

OPERATIONS = Path(__file__).parents[3] / "docs" / "operations.md"

KERNEL, CMDLINE, _, *RAMDISKS = (data for _, data in PLAIN)


@pytest.fixture(autouse=True)
def in_a_folder_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, data in {
        "plain.eif": make_eif(),
        "signed.eif": make_eif(SIGNED),
        "forged.eif": make_eif(FORGED),
        "damaged.eif": make_eif()[:-1],
        "kernel": KERNEL,
        "cmdline": CMDLINE + b"\n",
        "init": RAMDISKS[0],
        "app": RAMDISKS[1],
        "empty": b"",
        "metadata.json": b'{"ImageName": "web"}',
    }.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)


def run(*arguments: str, stdin: bytes = b"") -> Result:
    return CliRunner().invoke(command, arguments, input=stdin)


BUILD = (
    *("build", "--kernel", "kernel", "--cmdline", "console=ttyS0"),
    *("--ramdisk", "init", "--ramdisk", "app", "--output", "out.eif"),
)


def registers(certificate: bytes | None = None) -> str:
    pcrs = pcrs_of(PLAIN, certificate)
    return "".join(f"PCR{number} {pcrs[number].hex()}\n" for number in (0, 1, 2, 8))


MEASURED = {
    "unsigned": ("plain.eif", registers() + "signature: none\n"),
    "signed": ("signed.eif", registers(SIGNER.der) + "signature: verified\n"),
}


@pytest.mark.parametrize("case", MEASURED)
def test_registers_are_printed(case: str) -> None:
    file, expected = MEASURED[case]
    result = run("measure", file)
    assert (result.exit_code, result.stdout, result.stderr) == (0, expected, "")
    assert run("measure", "-", stdin=Path(file).read_bytes()).stdout == expected


def test_json_has_all_of_it() -> None:
    said = json.loads(run("measure", "--json", "signed.eif").stdout)

    pcrs = pcrs_of(PLAIN, SIGNER.der)
    assert said["pcrs"] == {str(number): pcrs[number].hex() for number in (0, 1, 2, 8)}
    assert said["signature"] == "verified"
    assert (said["version"], said["architecture"]) == (4, "x86_64")
    assert said["sections"][0] == {"kind": "kernel", "offset": 548, "size": 300}
    assert int(said["crc32"], 16) == int.from_bytes(make_eif(SIGNED)[0x220:0x224], "big")


def test_the_policy_is_a_condition() -> None:
    said = json.loads(run("measure", "--kms-policy", "signed.eif").stdout)

    condition = said["Condition"]["StringEqualsIgnoreCase"]
    assert condition["kms:RecipientAttestation:ImageSha384"] == pcrs_of(PLAIN)[0].hex()
    assert sorted(name.rpartition(":")[2] for name in condition) == [
        *("ImageSha384", "PCR1", "PCR2", "PCR8")
    ]


def test_without_cryptography_the_output_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "vsockproxy.attestation.eif_verification", raising=False)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    for name in [name for name in sys.modules if name.startswith("cryptography.")]:
        monkeypatch.setitem(sys.modules, name, None)

    text = run("measure", "forged.eif")
    assert text.exit_code == 0
    assert text.stdout.endswith("signature: not verified (pip install 'vsockproxy[trust]')\n")
    assert "not verified" in json.loads(run("measure", "--json", "forged.eif").stdout)["signature"]
    policy = run("measure", "--kms-policy", "signed.eif")
    assert "PCR8" in policy.stdout
    assert policy.stderr.startswith("warning: signature not verified")


def test_the_documentation_shows_what_is_printed() -> None:
    Path("web.eif").write_bytes(make_eif())
    shown = "".join(
        f"$ vsockproxy eif {' '.join(words)}\n{run(*words).stdout}"
        for words in (["measure", "web.eif"], ["measure", "--kms-policy", "web.eif"])
    )
    assert f"```\n{shown}```\n" in OPERATIONS.read_text(encoding="utf-8")


FAILURES = {
    "a damaged file": (["measure", "damaged.eif"], 1, "damaged.eif: offset 1162: it ends within"),
    "another file": (["measure", "kernel"], 1, "kernel: offset 300: it ends within the 548 bytes"),
    "a forged signature": (
        ["measure", "forged.eif"],
        1,
        "forged.eif: the signature is refused: the certificate's key did not make it",
    ),
    "no file": (["measure", "missing.eif"], 2, "missing.eif: No such file or directory"),
    "a folder": (["measure", "folder"], 2, "folder: Is a directory"),
    "two forms": (["measure", "--json", "--kms-policy", "plain.eif"], 2, "leave --json out"),
    "no kernel": (
        [*BUILD, "--kernel", "missing"],
        2,
        "--kernel missing: No such file or directory",
    ),
    "an empty kernel": ([*BUILD, "--kernel", "empty"], 1, "a kernel without a byte"),
    "a folder for a ramdisk": (
        [*BUILD, "--ramdisk", "folder"],
        2,
        "--ramdisk folder: Is a directory",
    ),
    "no command line": ([*BUILD, "--cmdline", "@missing"], 2, "--cmdline missing: No such file"),
    "no metadata": ([*BUILD, "--metadata", "@missing"], 2, "--metadata missing: No such file"),
    "no JSON": ([*BUILD, "--metadata", "{"], 1, "metadata: no JSON: "),
    "no object": ([*BUILD, "--metadata", "[]"], 1, "metadata: no object of JSON"),
    "no such folder": (
        [*BUILD, "--output", "missing/out.eif"],
        2,
        "--output missing/out.eif: No such file or directory",
    ),
    "a folder as output": ([*BUILD, "--output", "folder"], 2, "--output folder: Is a directory"),
    "an architecture": ([*BUILD, "--arch", "riscv"], 2, "'riscv' is not one of"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_a_failure_is_one_line_and_a_status(case: str) -> None:
    arguments, status, text = FAILURES[case]
    before = sorted(Path().iterdir())

    result = run(*arguments)

    assert (result.exit_code, result.stdout) == (status, "")
    assert text in result.stderr
    assert "Traceback" not in result.stderr
    assert sorted(Path().iterdir()) == before


def test_an_image_is_built_as_the_layout_says() -> None:
    result = run(*BUILD)

    assert (result.exit_code, result.stdout) == (0, registers())
    sections = read_eif(Path("out.eif").read_bytes())
    assert [section for section in sections if section[0] != 5] == [
        section for section in PLAIN if section[0] != 5
    ]
    assert run("measure", "out.eif").stdout == registers() + "signature: none\n"
    assert stat.S_IMODE(Path("out.eif").stat().st_mode) & 0o600 == 0o600


def test_a_kernel_that_nothing_starts_is_warned_of() -> None:
    Path("bzImage").write_bytes(bytes(0x202) + b"HdrS" + bytes(100))

    assert run(*BUILD, "--kernel", "bzImage").stderr == ""
    result = run(*BUILD, "--kernel", "bzImage", "--arch", "aarch64")
    assert (result.exit_code, result.stderr) == (
        0,
        "warning: --kernel bzImage is no Image of aarch64: an enclave may not start from it\n",
    )
    assert "warning: --kernel kernel is no bzImage: " in run(*BUILD, "--json").stderr


def test_the_same_inputs_make_the_same_bytes() -> None:
    run(*BUILD)
    first = Path("out.eif").read_bytes()

    again = run(*BUILD, "--cmdline", "@cmdline", "--json")

    assert Path("out.eif").read_bytes() == first
    assert json.loads(again.stdout)["pcrs"]["0"] == pcrs_of(PLAIN)[0].hex()


def test_metadata_and_architecture_go_into_the_image() -> None:
    run(*BUILD, "--metadata", "@metadata.json", "--arch", "aarch64")

    metadata = json.loads(read_eif(Path("out.eif").read_bytes())[2][1])
    assert metadata["ImageName"] == "web"
    assert metadata["BuildMetadata"]["BuildTime"] == ""
    said = json.loads(run("measure", "--json", "out.eif").stdout)
    assert said["architecture"] == "aarch64"
    assert said["pcrs"]["0"] == pcrs_of(PLAIN)[0].hex()


@pytest.mark.parametrize("size_bytes", [3, 5], ids=["grown", "shrunk"])
def test_a_file_that_changed_its_size_is_noticed(size_bytes: int) -> None:
    writer = EifWriter("x86_64", 1, b"c", b"{}", [size_bytes])
    sources = [BytesIO(data) for data in (b"k", b"c", b"{}", b"init")]

    with pytest.raises(UnusableInput, match="a ramdisk changed its size while it was read"):
        write_image(writer, sources, BytesIO())
