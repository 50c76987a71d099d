"""Programs that know nothing but 169.254.169.254 find the instance role there, where it is on."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox.sandboxes import AWS_VARIABLES, Done, run_sandbox
from tests.support.credentials_service import running_credentials
from tests.support.metadata_service import MetadataService, serving_metadata

CID = 4
"""Of a sandbox whose parent's file names none."""

WITH_BOTOCORE = """
import json, os
del os.environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"]
import botocore.session
session = botocore.session.Session()
found = session.get_credentials()
frozen = found.get_frozen_credentials()
print(json.dumps([found.method, frozen.access_key, os.environ.get("AWS_REGION")]))
"""

WITH_URLLIB = """
import json, sys, urllib.error, urllib.request
base = "http://169.254.169.254"
def ask(path, method="GET", **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(base + path, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return [answer.status, answer.read().decode()]
    except urllib.error.HTTPError as error:
        return [error.code, ""]
    except OSError as error:
        return [0, str(error)]
ttl = {"X_aws_ec2_metadata_token_ttl_seconds": "60"}
status, token = ask("/latest/api/token", "PUT", **ttl)
given = {"X_aws_ec2_metadata_token": token}
roles = "/latest/meta-data/iam/security-credentials/"
print(json.dumps({
    "token": status,
    "role": ask(roles, **given),
    "region": ask("/latest/meta-data/placement/region", **given),
    "identity": ask("/latest/dynamic/instance-identity/document", **given)[0],
    "version 1": ask(roles)[0],
    "a proxy's": ask("/latest/api/token", "PUT", X_Forwarded_For="10.0.0.1", **ttl)[0],
    "no lifetime": ask("/latest/api/token", "PUT")[0],
}))
"""


@pytest.fixture
def parent(namespaces: None, tmp_path: Path) -> Iterator[Path]:
    """The parent's file, with credentials for a sandbox behind it."""
    del namespaces
    socket = tmp_path / "credentials.sock"
    with serving_metadata(MetadataService()) as service, running_credentials(socket, service):
        yield write(
            tmp_path / "parent.yaml",
            listen="vsock://any:5000",
            credentials={"enclaves": [CID], "socket": f"unix://{socket}"},
        )


def write(path: Path, **content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def run(
    parent: Path, program: str, *, shim: dict[str, Any] | None = None, **credentials: Any
) -> Done:
    enclave = write(
        parent.parent / "enclave.yaml",
        parent="vsock://3:5000",
        shim=shim or {},
        credentials=credentials,
    )
    files = ("--config-parent", str(parent), "--config-enclave", str(enclave))
    given = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")
    variables = {name: value for name, value in AWS_VARIABLES.items() if name not in given}
    # A start would say that SDKs follow it.
    return run_sandbox(files, (sys.executable, "-c", program), {**variables, "AWS_CA_BUNDLE": ""})


def test_botocore_without_container_variables_takes_them_from_there(parent: Path) -> None:
    done = run(parent, WITH_BOTOCORE, imds=True)
    assert done.status == 0, done.stderr
    assert json.loads(done.stdout) == ["iam-role", "ASIA0000000000000000", "eu-west-1"]


def test_it_speaks_imdsv2_and_nothing_else(parent: Path) -> None:
    done = run(parent, WITH_URLLIB, imds=True)
    assert done.status == 0, done.stderr
    assert json.loads(done.stdout) == {
        "token": 200,
        "role": [200, "the-role"],
        "region": [200, "eu-west-1"],
        "identity": 404,
        "version 1": 401,
        "a proxy's": 403,
        "no lifetime": 400,
    }


def test_where_programs_are_told_of_a_proxy_they_ask_there_past_it(parent: Path) -> None:
    done = run(parent, WITH_URLLIB, shim={"environment": True}, imds=True)
    assert done.status == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["token"], found["role"]) == (200, [200, "the-role"])


def test_without_the_key_nobody_answers_there(parent: Path) -> None:
    done = run(parent, WITH_URLLIB)
    assert done.status == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["token"] == 0
    assert "refused" in found["role"][1].lower()


WITH_BOTO3 = """
import boto3, json
session = boto3.session.Session()
found = session.get_credentials()
frozen = found.get_frozen_credentials()
print(json.dumps([found.method, frozen.access_key, session.region_name]))
"""


@pytest.mark.parametrize(
    ("listen", "cid"),
    [
        pytest.param("vsock://any:5000", CID, id="as the first enclave"),
        pytest.param("unix:///run/link.sock?cid=21", 21, id="as the file says"),
    ],
)
def test_the_parent_itself_asks_the_metadata_service(
    namespaces: None, tmp_path: Path, listen: str, cid: int
) -> None:
    del namespaces
    with serving_metadata(MetadataService()) as service:
        imds = f"http://127.0.0.1:{service.port}"
        parent = write(
            tmp_path / "parent.yaml",
            listen=listen,
            credentials={"imds": imds, "enclaves": [cid]},
        )
        done = run(parent, WITH_BOTO3)
    assert done.status == 0, done.stderr
    assert json.loads(done.stdout) == ["container-role", "ASIA0000000000000000", "eu-west-1"]
    assert done.stderr == ""
