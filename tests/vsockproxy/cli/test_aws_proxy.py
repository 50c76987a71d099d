"""`vsockproxy aws-proxy`: what it becomes, and what it says where it cannot."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.support.credentials_service import running_credentials
from tests.support.metadata_service import MetadataService, serving_metadata
from tests.support.program import Program, command_line
from vsockproxy.cli.main import main

FILE = "allowlist:\n- {address: %s, port: 443}\n"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[MetadataService]:
    with serving_metadata(MetadataService(region="cn-north-1")) as running:
        yield running


def test_it_becomes_vsock_proxy_with_the_region_and_the_suffix_of_its_partition(
    tmp_path: Path, service: MetadataService
) -> None:
    socket = tmp_path / "credentials.sock"
    # A list without that host: so vsock-proxy ends, and names what it was asked for.
    file = tmp_path / "vsock-proxy.yaml"
    file.write_text(FILE % "kms.eu-west-1.amazonaws.com")
    with running_credentials(socket, service):
        command = command_line(
            *("aws-proxy", "--credentials", f"unix://{socket}", "--config", str(file))
        )
        with Program(command) as program:
            assert program.end()[0] == 1
        assert "The given address and port are not allowed" in program.lines[-1]
        assert "kms.cn-north-1.amazonaws.com.cn" in program.lines[-1]


def test_a_region_that_is_given_is_asked_of_nobody(tmp_path: Path) -> None:
    file = tmp_path / "vsock-proxy.yaml"
    file.write_text(FILE % "kms.eu-west-1.amazonaws.com")
    words = ("--region", "us-gov-east-1", "--service", "kms-fips", "--config", str(file))
    with Program(command_line("aws-proxy", *words)) as program:
        assert program.end()[0] == 1
    assert "kms-fips.us-gov-east-1.amazonaws.com" in program.lines[-1]


def test_without_the_credentials_service_it_ends_and_names_its_unit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vsockproxy.cli.aws_proxy.WAIT_SECONDS", 0.1)
    words = ["aws-proxy", "--credentials", f"unix://{tmp_path}/none.sock"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 1
    assert "is not known after 0.1 s" in result.output
    assert "vsockproxy-credentials.service" in result.output


@pytest.mark.parametrize(
    "words", [["--region", "Ireland"], ["--credentials", "tcp://127.0.0.1:1"], ["--port", "0"]]
)
def test_wrong_options(words: list[str]) -> None:
    result = CliRunner().invoke(main, ["aws-proxy", *words])
    assert result.exit_code != 0
    assert result.output
