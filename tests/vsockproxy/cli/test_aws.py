"""The command line of `vsock-proxy`: what is said before anything is served."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from vsockproxy import __version__
from vsockproxy.addresses import UnixAddress
from vsockproxy.cli.aws import Surroundings, main

FILE = """\
allowlist:
- {address: kms.eu-west-1.amazonaws.com, port: 443}
- {address: xn--bcher-kva.example, port: 443}
- {address: 10.0.0.5, port: 5432}
- {address: "fd12::5", port: 5432}
- {address: 169.254.169.254, port: 80}
"""
KMS = "kms.eu-west-1.amazonaws.com"
NOWHERE = UnixAddress("/nonexistent/proxy.sock")
BOUND = f"Could not listen for connections: Could not bind to {NOWHERE}: its directory does not"
NOT_ALLOWED = "Error at checking the allowlist: The given address and port are not allowed: "


@pytest.fixture(autouse=True)
def _file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vsock-proxy.yaml").write_text(FILE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RUST_LOG", raising=False)


def run(*words: str, file: str = "vsock-proxy.yaml") -> Result:
    """The command; where nothing else is wrong, it cannot listen, so it never serves."""
    surroundings = Surroundings(listen=NOWHERE)
    return CliRunner().invoke(main, [*words, "--config", file], obj=surroundings)


ACCEPTED: dict[str, tuple[str, ...]] = {
    "as AWS's unit has it": ("8000", KMS, "443"),
    "options in front": ("-4", "-w", "20", "8000", KMS, "443"),
    "options behind": ("8000", KMS, "443", "--ipv6", "--num_workers=1"),
    "options between, the value joined": ("8000", "-w9", KMS, "-6", "443"),
    "numbers as Rust reads them": ("+08000", KMS, "00443", "-w", "+4"),
    "the highest vsock port": ("4294967294", KMS, "443"),
    "the most workers": ("8000", KMS, "443", "-w", "18446744073709551615"),
    "a name in other letters, with a dot at its end": (
        "8000",
        "KMS.eu-west-1.AmazonAWS.com.",
        "443",
    ),
    "an internationalised name": ("8000", "xn--bcher-kva.example", "443"),
    "an internationalised name in its own letters": ("8000", "bücher.example", "443"),
    "a private literal": ("8000", "10.0.0.5", "5432", "-4"),
    "a literal that is spelled differently": ("8000", "FD12:0::0005", "5432"),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_what_is_listed_gets_as_far_as_listening(case: str) -> None:
    result = run(*ACCEPTED[case])
    assert result.stderr.startswith(f"Error: {BOUND}")
    assert (result.exit_code, result.stdout) == (1, "")


REFUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "a local port that is no number": (("x", KMS, "443"), "Local port is not valid: 'x'"),
    "a negative local port": (("--", "-1", KMS, "443"), "Local port is not valid: '-1'"),
    "local port 0": (("0", KMS, "443"), "Local port is not valid: '0'"),
    "VMADDR_PORT_ANY": (("4294967295", KMS, "443"), "Local port is not valid: '4294967295'"),
    "a local port with a space": ((" 8000", KMS, "443"), "Local port is not valid: ' 8000'"),
    "a local port in other digits": (("\uff18000", KMS, "443"), "Local port is not valid"),
    "a remote port that is no number": (("8000", KMS, "https"), "Remote port is not valid"),
    "remote port 0": (("8000", KMS, "0"), "Remote port is not valid: '0'"),
    "a remote port above 16 bits": (("8000", KMS, "65979"), "Remote port is not valid: '65979'"),
    "no workers": (("8000", KMS, "443", "-w", "0"), "Number of workers must not be 0"),
    "workers that are no number": (
        ("8000", KMS, "443", "-w", "many"),
        "Number of workers is not valid: 'many'",
    ),
    "negative workers": (
        ("8000", KMS, "443", "--num_workers=-1"),
        "Number of workers is not valid: '-1'",
    ),
    "workers above 64 bits": (
        ("8000", KMS, "443", "-w", "18446744073709551616"),
        "Number of workers is not valid",
    ),
    "a name that is not listed": (
        ("8000", "kms.us-east-1.amazonaws.com", "443"),
        f"{NOT_ALLOWED}kms.us-east-1.amazonaws.com:443 is not listed: add "
        '{address: "kms.us-east-1.amazonaws.com", port: 443} to allowlist in vsock-proxy.yaml',
    ),
    "a port that is not listed": (
        ("8000", KMS, "80"),
        f"{NOT_ALLOWED}{KMS} is listed for port 443 (vsock-proxy.yaml:2), not for port 80: add",
    ),
    "a literal that a listed name may resolve to": (
        ("8000", "10.0.0.6", "443"),
        f"{NOT_ALLOWED}10.0.0.6:443 is not listed",
    ),
    "a literal in octal": (
        ("8000", "012.0.0.5", "5432"),
        f"{NOT_ALLOWED}not a host: '012.0.0.5' is no canonical IPv4 address",
    ),
    "a literal in brackets": (
        ("8000", "[fd12::5]", "5432"),
        f"{NOT_ALLOWED}not a host: '[fd12::5]' has brackets",
    ),
    "a host with a line break": (("8000", "a\nb", "443"), f"{NOT_ALLOWED}not a host: 'a\\nb'"),
    "an empty host": (("8000", "", "443"), f"{NOT_ALLOWED}not a host: the address is empty"),
    "instance metadata, although listed": (
        ("8000", "169.254.169.254", "80"),
        f"{NOT_ALLOWED}169.254.169.254 is instance metadata (link-local): only a rule with "
        "metadata: true in a file of `vsockproxy parent` opens it",
    ),
    "an IPv4 literal with -6": (
        ("-6", "8000", "10.0.0.5", "5432"),
        "Error at checking the allowlist: No accepted IP was found: 10.0.0.5 is an IPv4 address",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_is_one_line_with_awss_text_and_1(case: str) -> None:
    words, text = REFUSED[case]
    result = CliRunner().invoke(
        main, ["--config", "vsock-proxy.yaml", *words], obj=Surroundings(listen=NOWHERE)
    )
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"Error: {text}")
    assert result.stderr.count("\n") == 1


BROKEN: dict[str, tuple[str, str, str]] = {
    "a key that AWS's proxy would leave aside": (
        "allowlist:\n- {address: a.example, port: 443, comment: x}\n",
        "Bad yaml format",
        "2: allowlist[0].comment: unknown key: remove it, or write one of address, port",
    ),
    "a second key at the top": (
        "allowlist: []\ndenylist: []\n",
        "Bad yaml format",
        "2: denylist: unknown key",
    ),
    "a port that AWS's proxy would cut to 16 bits": (
        "allowlist:\n- {address: a.example, port: 65979}\n",
        "No port field or invalid type",
        "2: allowlist[0].port: 65979 is out of range",
    ),
    "a port in quotes": (
        'allowlist:\n- {address: a.example, port: "443"}\n',
        "No port field or invalid type",
        "2: allowlist[0].port: '443' is text, not a number",
    ),
    "no port, behind an entry that fits": (
        f"allowlist:\n- {{address: {KMS}, port: 443}}\n- {{address: a.example}}\n",
        "No port field or invalid type",
        "3: allowlist[1].port: missing",
    ),
    "no address": ("allowlist:\n- {port: 443}\n", "No address field", "2: allowlist[0].address"),
    "no allowlist": ("services: []\n", "Bad yaml format", "1: services: unknown key"),
    "an allowlist that is a mapping": (
        "allowlist: {a: b}\n",
        "No allowlist field",
        "1: allowlist: a mapping does not fit",
    ),
    "an allowlist of nothing": ("allowlist:\n", "No allowlist field", "1: allowlist: nothing"),
    "broken syntax": ("allowlist: [\n", "Bad yaml format", "2: allowlist: no value"),
    "an empty file": ("", "Bad yaml format", "1: (file): the file is empty"),
    "a parent's file": (
        "listen: vsock://any:5000\nallowlist: []\n",
        "Bad yaml format",
        "1: (file): this is a parent's file",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_awss_text_then_the_lines_of_check(case: str) -> None:
    text, words_of_aws, line = BROKEN[case]
    Path("broken.yaml").write_text(text, encoding="utf-8")
    result = run("8000", KMS, "443", file="broken.yaml")
    assert (result.exit_code, result.stdout) == (1, "")
    first, *others = result.stderr.splitlines()
    assert first == f"Error: Error at checking the allowlist: {words_of_aws}"
    assert others[0].startswith(f"broken.yaml:{line}")


def test_a_file_that_is_not_there() -> None:
    result = run("8000", KMS, "443", file="nothing.yaml")
    assert result.exit_code == 1
    text = "Error: Error at checking the allowlist: Could not open the file: nothing.yaml: cannot"
    assert result.stderr.startswith(text)


USAGE: dict[str, tuple[str, ...]] = {
    "no arguments": (),
    "an argument is missing": ("8000", KMS),
    "an argument too many": ("8000", KMS, "443", "x"),
    "an unknown option": ("8000", KMS, "443", "--workers", "4"),
    "both families": ("-4", "-6", "8000", KMS, "443"),
    "both families, long and joined": ("-46", "8000", KMS, "443"),
    "-w without a number": ("8000", KMS, "443", "-w"),
}


@pytest.mark.parametrize("case", USAGE)
def test_wrong_usage_is_2(case: str) -> None:
    result = CliRunner().invoke(main, USAGE[case], obj=Surroundings(listen=NOWHERE))
    assert result.exit_code == 2
    assert "Error: " in result.stderr
    assert "is not valid" not in result.stderr


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_the_help_has_awss_options_and_defaults(option: str) -> None:
    result = CliRunner().invoke(main, [option], terminal_width=120)
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    assert "Usage: vsock-proxy [OPTIONS] LOCAL_PORT REMOTE_ADDR REMOTE_PORT" in text
    for words in ("-4, --ipv4", "-6, --ipv6", "-w, --num_workers N", "-V, --version"):
        assert words in text
    assert "[default: 4]" in text
    assert "[default: /etc/nitro_enclaves/vsock-proxy.yaml]" in text


@pytest.mark.parametrize("option", ["-V", "--version"])
def test_the_version_is_ours(option: str) -> None:
    result = CliRunner().invoke(main, [option])
    assert (result.exit_code, result.stdout) == (0, f"vsock-proxy {__version__} (vsockproxy)\n")


def test_a_directive_that_cannot_be_read_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUST_LOG", "vsock_proxy=loud,info")
    result = run("8000", KMS, "443")
    first, second = result.stderr.splitlines()
    assert first == "warning: invalid logging spec 'vsock_proxy=loud', ignoring it"
    assert second.startswith(f"Error: {BOUND}")


def test_awss_own_file_loads_and_lists_its_regions() -> None:
    file = Path(__file__).parents[3] / "configs" / "aws-vsock-proxy.yaml"
    for region in ("us-east-1", "eu-central-1", "ap-southeast-4"):
        result = run("8000", f"kms-fips.{region}.amazonaws.com", "443", file=str(file))
        assert result.stderr.startswith(f"Error: {BOUND}")
