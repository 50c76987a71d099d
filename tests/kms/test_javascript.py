"""The AWS SDK for JavaScript against the KMS of the tests, signed by itself."""

import json
import os
import subprocess

import pytest

from tests.kms.conftest import ACCESS_KEY, REGION, SECRET_KEY, TOKEN
from tests.support import javascript
from tests.support.certificates import Authority
from tests.support.kms_server import KmsServer


@pytest.mark.skipif(
    javascript.what_is_missing() is not None, reason=javascript.what_is_missing() or "present"
)
def test_every_call_of_the_sdk(server: KmsServer, authority: Authority) -> None:
    symmetric = server.store.create()
    agreement = server.store.create(curve="ECC_NIST_P256")
    variables = {
        **javascript.variables(authority.file),
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_SESSION_TOKEN": TOKEN,
        "AWS_REGION": REGION,
        "AWS_ENDPOINT_URL_KMS": f"https://localhost:{server.port}",
    }

    done = subprocess.run(
        javascript.kms_calls(symmetric.arn, agreement.arn),
        env={"PATH": os.environ["PATH"], **variables},
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    )

    outcome = json.loads(done.stdout)
    assert set(outcome.pop("keys")) == {symmetric.arn, agreement.arn}
    outcome.pop("node")
    assert outcome == dict.fromkeys(javascript.EVERY_CALL[1:], True)
    assert server.count.errors == {}
    assert server.count.requests == {
        "ListKeys": 1,
        "Encrypt": 1,
        "Decrypt": 3,
        "GenerateDataKey": 1,
        "GenerateDataKeyPair": 1,
        "GenerateRandom": 1,
        "DeriveSharedSecret": 2,
    }
    assert server.count.handshakes == 1
