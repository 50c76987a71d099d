import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.support.credentials_service import running_credentials, wait_until_said
from tests.support.metadata_service import MetadataService, serving_metadata
from tests.support.program import Program, command_line
from tests.support.unix_http import ask_unix
from vsockproxy.cli.main import main


@pytest.fixture
def service() -> Iterator[MetadataService]:
    with serving_metadata(MetadataService()) as running:
        yield running


def test_credentials_region_and_health_behind_a_socket_of_user_and_group(
    tmp_path: Path, service: MetadataService
) -> None:
    path = tmp_path / "credentials.sock"
    with running_credentials(path, service) as program:
        status, credentials = ask_unix(path, "/credentials")
        assert status == 200
        assert credentials.pop("Expiration").endswith("Z")
        assert credentials == {
            "AccessKeyId": "ASIA0000000000000000",
            "SecretAccessKey": "secret/ASIA0000000000000000+x",
            "Token": "session/ASIA0000000000000000==",
            "Role": "the-role",
        }
        assert ask_unix(path, "/region") == (200, {"Region": "eu-west-1"})
        assert ask_unix(path, "/healthz") == (200, b"ok\n")
        assert ask_unix(path, "/latest")[0] == 404
        assert ask_unix(path, "/region", "PUT")[0] == 405
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        program.signal(signal.SIGTERM)
        status, _ = program.end()
        assert status == 0
    assert not path.exists()
    assert not any("secret/" in line or "session/" in line for line in program.lines)
    assert service.rotations == 1, "one fetch is enough for hours"


def test_without_a_role_it_serves_the_region_and_says_what_to_do(
    tmp_path: Path, service: MetadataService
) -> None:
    service.role = ""
    path = tmp_path / "credentials.sock"
    command = command_line(
        *("credentials", "--listen", f"unix://{path}"),
        *("--metadata-address", f"127.0.0.1:{service.port}"),
    )
    with Program(command) as program:
        _, line = wait_until_said(program, '"region_known"', '"fetch_failed"')
        assert "attach an instance profile" in line
        status, answer = ask_unix(path, "/credentials")
        assert status == 503
        assert "attach an instance profile" in answer["message"]
        assert ask_unix(path, "/region") == (200, {"Region": "eu-west-1"})


def test_a_role_that_is_attached_later_is_found_when_somebody_asks(
    tmp_path: Path, service: MetadataService
) -> None:
    service.role = ""
    path = tmp_path / "credentials.sock"
    command = command_line(
        *("credentials", "--listen", f"unix://{path}"),
        *("--metadata-address", f"127.0.0.1:{service.port}"),
    )
    with Program(command) as program:
        wait_until_said(program, '"fetch_failed"')
        service.role = "late"
        wait_until_said(program, '"credentials_fetched"')
        assert ask_unix(path, "/credentials")[1]["Role"] == "late"


def test_a_socket_that_cannot_be_bound_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "none" / "credentials.sock"
    with Program(command_line("credentials", "--listen", f"unix://{path}")) as program:
        status, _ = program.end()
        assert status == 1
        assert "its directory does not exist" in program.lines[-1]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        pytest.param(["--listen", "tcp://127.0.0.1:1"], "no unix socket", id="a TCP listener"),
        pytest.param(["--listen", "nowhere"], "no endpoint", id="no endpoint"),
        pytest.param(
            ["--metadata-address", "192.0.2.1:80"], "no address of", id="an address elsewhere"
        ),
        pytest.param(["--metadata-address", "name:80"], "ADDRESS:PORT", id="a name"),
    ],
)
def test_wrong_options_are_refused(arguments: list[str], text: str) -> None:
    result = CliRunner().invoke(main, ["credentials", *arguments])
    assert result.exit_code == 2
    assert text in " ".join(result.output.split())
