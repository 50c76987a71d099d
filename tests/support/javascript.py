"""The AWS SDK for JavaScript, which `make javascript` installs, and a program that calls KMS."""

import shutil
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODULES = ROOT / "build" / "javascript" / "node_modules"
KMS_CALLS = ROOT / "tests" / "javascript" / "kms_calls.js"

EVERY_CALL = ("keys", "decrypted", "dataKey", "dataKeyPair", "random", "sharedSecret")
"""What `kms_calls.js` says of its calls: the ARNs of all keys, and true five times."""


def what_is_missing() -> str | None:
    """Why the SDK cannot be used here; None if it can."""
    if shutil.which("node") is None:
        return "node is missing: apt-get install nodejs"
    if not (MODULES / "@aws-sdk" / "client-kms").is_dir():
        return "the AWS SDK for JavaScript is missing: make javascript"
    return None


def kms_calls(symmetric: str, agreement: str) -> list[str]:
    """The command of a program that makes every call, with two keys of KMS."""
    return ["node", str(KMS_CALLS), symmetric, agreement]


def variables(authority: Path) -> dict[str, str]:
    """What a program in JavaScript needs to find the SDK and to trust `authority`."""
    return {"NODE_PATH": str(MODULES), "NODE_EXTRA_CA_CERTS": str(authority)}
