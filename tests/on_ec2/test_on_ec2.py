"""The checks for a Nitro instance, in sandboxes: what they ask works, and a failure shows."""

import subprocess
import sys

from tests.on_ec2.__main__ import LINKS, Results, verify
from tests.support.nsm_server import attested, module_root
from tests.support.program import ROOT, environment


def test_the_checks_pass_in_sandboxes() -> None:
    command = [sys.executable, "-m", "tests.on_ec2", "--local", "--bytes", str(1 << 22)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, timeout=240, check=False
    )
    lines = done.stdout.decode().splitlines()
    assert (done.returncode, lines[-1]) == (0, "PASS"), done.stdout.decode() + done.stderr.decode()
    assert sum(line.startswith("PASS  links") for line in lines) == 11 * len(LINKS)
    assert "PASS  the module's document verifies, with its nonce" in lines
    assert sum("MiB/s" in line for line in lines) == len(LINKS)


def test_a_check_that_fails_fails_the_run() -> None:
    results = Results()
    report = {
        "links": 1,
        "checks": {"good": "pass", "bad": "wrong bytes, or none"},
        "machine": {"nsm": "absent", "rng_current": "absent", "kernel": "6.1"},
        "attestation": {"nonce": "00", "document": attested(nonce=b"\0").hex(), "said": "so"},
        "mebibytes_per_second": 1.0,
    }
    results.report(report, in_enclave=True)
    assert results.failed == 4


def test_a_document_is_verified() -> None:
    said = {"nonce": "00", "document": attested(nonce=b"\0").hex(), "said": ""}
    assert verify(said, module_root().der) == "pass"
    assert verify({**said, "nonce": "01"}, module_root().der).startswith("nonce")
    nothing = {**said, "document": "", "said": "no document"}
    assert verify(nothing, module_root().der).endswith("the enclave said 'no document'")
