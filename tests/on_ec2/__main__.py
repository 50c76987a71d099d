"""Checks on a real Nitro instance: real CIDs, large packets, NSM, an image, throughput by links.

    python -m tests.on_ec2            on a Nitro instance with nitro-cli and docker; 30 minutes
    python -m tests.on_ec2 --local    in sandboxes, without Nitro: what that can show of it

Prints one line for each check, PASS or FAIL, then PASS or FAIL for all; exit status 0 or 1.
"""

import json
import queue
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from tests.on_ec2.origin import Origin
from tests.support.program import ROOT, command_line, environment
from vsockproxy.attestation.documents import (
    AWS_ROOT,
    DocumentRefused,
    Requirements,
    verify_document,
)
from vsockproxy.attestation.software_pki import read_root

LINKS: Final = (1, 2, 4, 8)
LIMIT_SECONDS: Final = 1800
LINK_PORT: Final = 5000
FOLDER: Final = ROOT / "build" / "on_ec2"
SOFTWARE_ROOT: Final = FOLDER / "root.pem"
DOCUMENT_SECONDS: Final = 900.0
"""How old a document may be: the checks of an enclave take their time after it."""
IMAGE: Final = "vsockproxy-on-ec2"
HOST: Final = "origin.test"
PORT: Final = 7000
"""What the program in the enclave asks for; the parent dials the origin instead."""


class Results:
    """The lines, and whether all passed."""

    def __init__(self) -> None:
        self.failed = 0

    def line(self, name: str, outcome: str) -> None:
        """Print one check; everything but `pass` is a failure."""
        is_good = outcome == "pass"
        self.failed += not is_good
        print(f"{'PASS' if is_good else 'FAIL'}  {name}" + ("" if is_good else f": {outcome}"))

    def report(self, report: Mapping[str, Any], *, in_enclave: bool) -> None:
        """Print what the program in the enclave found with one number of links."""
        links = report["links"]
        for name, outcome in report["checks"].items():
            self.line(f"links {links}: {name}", outcome)
        print(f"      links {links}: {report['mebibytes_per_second']} MiB/s on 8 connections")
        if links == LINKS[0]:
            said = report["attestation"]
            name = "the module's document verifies, with its nonce"
            self.line(name, verify(said, AWS_ROOT if in_enclave else software_root()))
        if in_enclave and links == LINKS[0]:
            machine = report["machine"]
            self.line("the NSM device is there", "pass" if machine["nsm"] == "present" else "none")
            found = machine["rng_current"]
            self.line("rng_current is nsm-hwrng", "pass" if found == "nsm-hwrng" else found)
            print(f"      the enclave's kernel is {machine['kernel']}")


def verify(said: Mapping[str, str], root: bytes) -> str:
    """`pass`, or why a document that was just made is none of that root."""
    wanted = Requirements(
        roots=(root,), nonce=bytes.fromhex(said["nonce"]), max_age_seconds=DOCUMENT_SECONDS
    )
    try:
        verify_document(bytes.fromhex(said["document"]), wanted, datetime.now(UTC))
    except DocumentRefused as refused:
        return f"{refused}; the enclave said {said['said']!r}"
    return "pass"


def software_root() -> bytes:
    """The root of the sandboxes' software module, DER."""
    return read_root(SOFTWARE_ROOT.read_bytes()).der


def write_files(
    folder: Path, origin_port: int, parent: str, listen: str, enclave: str = ""
) -> None:
    """A file for the parent, and one for the enclave for each number of links."""
    folder.mkdir(parents=True, exist_ok=True)
    rule = f"{{address: {HOST}, port: {PORT}"
    (folder / "parent.yaml").write_text(
        f"listen: {listen}\nallowlist:\n"
        f"  - {rule}, private: true, dial: '127.0.0.1:{origin_port}'}}\n"
    )
    for links in LINKS:
        (folder / f"links-{links}.yaml").write_text(
            f"parent: {parent}\nlinks: {links}\nallowlist:\n"
            f"  - {rule}, require_tls: false}}\n{enclave}"
        )


def run_local(origin: Origin, count: int) -> Iterator[dict[str, Any]]:
    """The same program in sandboxes."""
    module = f"attestation: {{device: software, root: {SOFTWARE_ROOT}}}\n"
    write_files(FOLDER, origin.port, "unix:///ignored.sock", "unix:///ignored.sock", module)
    for links in LINKS:
        files = ("--config-parent", "parent.yaml", "--config-enclave", f"links-{links}.yaml")
        inside = (sys.executable, "-m", "tests.on_ec2.inside")
        program = (*inside, HOST, str(PORT), str(links), str(count))
        subprocess.run(
            command_line("sandbox", *files, "--", *program),
            cwd=FOLDER,
            env=environment(),
            stderr=subprocess.DEVNULL,
            timeout=LIMIT_SECONDS / len(LINKS),
            check=True,
        )
        yield origin.reports.get(timeout=10)


@contextmanager
def running_parent() -> Iterator[Path]:
    """The parent's side, as the operator starts it; its log as a file."""
    log = FOLDER / "parent.log"
    with log.open("wb") as stderr:
        command = command_line("parent", "--config", str(FOLDER / "parent.yaml"))
        process = subprocess.Popen(command, env=environment(), stderr=stderr)
        try:
            yield log
        finally:
            process.terminate()
            process.wait(60)


def nitro(*arguments: str) -> dict[str, Any]:
    """What `nitro-cli` says; it prints JSON on stdout."""
    done = subprocess.run(
        ["nitro-cli", *arguments], stdout=subprocess.PIPE, timeout=600, check=True
    )
    answer: dict[str, Any] = json.loads(done.stdout or b"{}")
    return answer


def run_on_nitro(origin: Origin, results: Results) -> Iterator[dict[str, Any]]:
    """Build the image, start the enclave, wait for its reports."""
    deadline = time.monotonic() + LIMIT_SECONDS
    write_files(FOLDER, origin.port, f"vsock://3:{LINK_PORT}", f"vsock://any:{LINK_PORT}")
    dockerfile = str(ROOT / "tests" / "on_ec2" / "Dockerfile")
    build = ["docker", "build", "--quiet", "--file", dockerfile, "--tag", IMAGE, str(ROOT)]
    subprocess.run(build, timeout=900, check=True)
    image = str(FOLDER / "enclave.eif")
    nitro("build-enclave", "--docker-uri", IMAGE, "--output-file", image)
    results.line("docker and nitro-cli build the image", "pass")
    with running_parent() as log:
        options = ("--eif-path", image, "--cpu-count", "2", "--memory", "2048")
        enclave = nitro("run-enclave", *options)
        try:
            for _ in LINKS:
                yield origin.reports.get(timeout=max(1.0, deadline - time.monotonic()))
        finally:
            nitro("terminate-enclave", "--enclave-id", enclave["EnclaveID"])
        ups = [json.loads(line) for line in log.read_bytes().splitlines()]
        cids = {line["cid"] for line in ups if line["event"] == "link_up"}
        cid = enclave["EnclaveCID"]
        results.line("the parent saw the CID of the enclave", _same(cids, {cid}))
        results.line("no link was lost", _same(_lost(ups), []))


def _lost(lines: Sequence[Mapping[str, Any]]) -> list[object]:
    """Links that ended otherwise than with the enclave's side (GOAWAY) or the enclave itself."""
    return [
        line.get("text")
        for line in lines
        if line["event"] == "link_down" and line["level"] != "info" and line["code"] == "protocol"
    ]


def _same(found: object, wanted: object) -> str:
    return "pass" if found == wanted else f"{found}, not {wanted}"


@click.command
@click.option("--local", is_flag=True, help="Sandboxes in place of an enclave.")
@click.option("--bytes", "count", default=1 << 28, help="Bytes each way, with --local.")
@click.pass_context
def main(context: click.Context, local: bool, count: int) -> None:
    """Run every check."""
    for program in () if local else ("nitro-cli", "docker"):
        if not shutil.which(program):
            raise click.ClickException(f"{program} is missing: this runs on a Nitro instance")
    results = Results()
    origin = Origin()
    try:
        reports = run_local(origin, count) if local else run_on_nitro(origin, results)
        for report in reports:
            results.report(report, in_enclave=not local)
    except (subprocess.SubprocessError, queue.Empty) as error:
        results.line("the run came to its end", f"{type(error).__name__}: {error}")
    print("FAIL" if results.failed else "PASS")
    context.exit(1 if results.failed else 0)


if __name__ == "__main__":
    main()
