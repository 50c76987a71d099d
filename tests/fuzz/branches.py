"""Measures how much of the parsers the fuzzer reaches: `python -m tests.fuzz.branches --runs 300`.

Each target is executed on its corpus and on mutants of it, the same ones for the same seed. What is
left of a parser's branches is printed; exit status 1 if one reaches less than 95 % of its own.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import coverage

LEAST_SHARE = 0.95

PARSERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "vsockproxy/attestation/ber.py": (),
        "vsockproxy/attestation/documents/chain.py": ("read_roots",),
        "vsockproxy/attestation/documents/cose.py": (),
        "vsockproxy/attestation/documents/payload.py": (),
        "vsockproxy/attestation/documents/structure.py": (),
        "vsockproxy/attestation/documents/verification.py": (),
        "vsockproxy/attestation/eif.py": (),
        "vsockproxy/attestation/eif_reader.py": (),
        "vsockproxy/attestation/eif_signature.py": (),
        "vsockproxy/attestation/eif_verification.py": (),
        "vsockproxy/attestation/kms_answers.py": (),
        "vsockproxy/attestation/kms_calls.py": (),
        "vsockproxy/attestation/kms_envelope.py": (),
        "vsockproxy/attestation/kms_json.py": (),
        "vsockproxy/attestation/nsm_messages.py": (
            "encode_extend_pcr",
            "encode_lock_pcrs",
            "encode_attestation",
            "_checked_index",
        ),
        "vsockproxy/attestation/software_nsm.py": ("encode_payload",),
        "vsockproxy/attestation/whole_cbor.py": (),
        "vsockproxy/certificates/acme_messages.py": (),
        "vsockproxy/certificates/acme_order.py": (),
        "vsockproxy/client/kms_calls.py": ("_encoded",),
        "vsockproxy/client/kms_exchange.py": ("find_proxy", "find_region"),
        # A client of Python cannot ask for another negotiation; a test does, with another one.
        "vsockproxy/dataplane/tls_records.py": ("TlsRecords._check_answer",),
        "vsockproxy/protocols/attestation_request.py": (),
        "vsockproxy/protocols/certificate.py": (),
        "vsockproxy/protocols/client_hello.py": (),
        "vsockproxy/protocols/http_conversation.py": (),
        "vsockproxy/protocols/http_front.py": (),
        "vsockproxy/protocols/http_service.py": (),
        "vsockproxy/protocols/sigv4.py": (
            "sign",
            "canonical_request",
            "signature",
            "format_time",
            "_without_dot_segments",
        ),
        "vsockproxy/session/attesting.py": ("demands_attestation", "Evidence.encode"),
    }
)
"""Files that read what the other side of a trust boundary says: with the functions in them that do
not, since they write, or read what the program itself has made."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz, and print what was reached; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.branches", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--runs", type=int, required=True, help="executions of each target")
    parser.add_argument("--seed", type=int, default=1, help="the seed (default: 1)")
    options = parser.parse_args(arguments)
    print(f"seed {options.seed}")
    share = min(
        _print_parser(name, functions)
        for name, functions in _measure(options.runs, options.seed).items()
    )
    print(f"the least: {share:.1%} of a parser's branches, at least {LEAST_SHARE:.0%} are wanted")
    return 0 if share >= LEAST_SHARE else 1


def _measure(runs: int, seed: int) -> dict[str, dict[str, Any]]:
    """What coverage says of each function, by parser."""
    measuring = coverage.Coverage(data_file=None, branch=True, include=list(PARSERS))
    measuring.start()
    from tests.fuzz.fuzzer import fuzz  # here, so that their own first lines count as reached
    from tests.fuzz.targets import TARGETS

    for target in TARGETS.values():
        fuzz(target, seed, runs=runs)
    measuring.stop()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "branches.json"
        measuring.json_report(outfile=str(report))
        files = json.loads(report.read_text())["files"]
    return {name: files[name]["functions"] for name in PARSERS}


def _print_parser(name: str, functions: dict[str, Any]) -> float:
    read = {each: found for each, found in functions.items() if each not in PARSERS[name]}
    there = sum(found["summary"]["num_branches"] for found in read.values())
    reached = sum(found["summary"]["covered_branches"] for found in read.values())
    share = reached / there if there else 1.0
    print(f"{name}: {reached} of {there} branches, {share:.1%}")
    for function, found in read.items():
        for begin, end in found["missing_branches"]:
            print(f"  {function}: line {begin} to {end if end > 0 else 'the end'}")
    return share


if __name__ == "__main__":
    sys.exit(main())
