"""KMS decrypts a second through the proxy, beside plain boto3: `python -m tests.benchmarks.kms`.

Both are boto3, in threads of one process, and call the same KMS (the tests' own, on loopback, with
TLS, in a process of its own): one straight, without attestation, the other through an enclave and
its parent, with a document for each call, an envelope in answer, and another signature. The Nitro
Secure Module is software, and in a process of its own too, as the real one is no process of the
enclave. The KMS reads documents and verifies none, which would measure it and not the proxy.

Rounds take turns. A ratio is the median of those of each round.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]  # it has no types
from botocore.config import Config  # type: ignore[import-untyped]  # it has no types

from tests.benchmarks.pairs import reserved_port
from tests.benchmarks.processes import ProcessTree, started
from tests.support.kms_pair import HOST, REGION, known_key
from tests.support.metadata_service import MetadataService, serving_metadata
from tests.support.nsm_server import nsm_socket

CALLERS = (1, 30, 200)
CALLS = {1: 300, 30: 1500, 200: 2000}
"""Of one round."""

ROUNDS = 5
READY_SECONDS = 60.0
MOST_RATIO = 1.5
"""Of the p99 at 30 callers."""
JUDGED_CALLERS = 30
PLAINTEXT = b"p" * 32
CID = 16


@dataclass(frozen=True, slots=True)
class Figures:
    """One round."""

    per_second: float
    p50: float
    p99: float


@dataclass(frozen=True, slots=True)
class Way:
    """How programs reach KMS."""

    name: str
    url: str
    variables: dict[str, str]

    def measure(self, callers: int, key: str) -> Figures:
        """One round, in a process of its own."""
        command = [sys.executable, "-m", "tests.benchmarks.kms", "--call", self.url, key]
        done = subprocess.run(
            [*command, "--callers", str(callers)],
            env={**os.environ, **self.variables},
            stdout=subprocess.PIPE,
            check=True,
        )
        found: dict[str, float] = json.loads(done.stdout)
        return Figures(**found)


def call(url: str, key: str, callers: int) -> None:
    """Be the program: decrypt over and over, and print what that took."""
    calls = CALLS.get(callers, 1500)
    # A call that was tried again would look like a slow one.
    config = Config(retries={"total_max_attempts": 1}, max_pool_connections=callers)
    client = boto3.client("kms", endpoint_url=url, config=config)
    sealed = client.encrypt(KeyId=key, Plaintext=PLAINTEXT)["CiphertextBlob"]
    everybody = threading.Barrier(callers + 1)
    taken: list[float] = []

    def decrypt() -> None:
        assert client.decrypt(CiphertextBlob=sealed)["Plaintext"] == PLAINTEXT

    def work(count: int) -> None:
        decrypt()
        everybody.wait()
        for _ in range(count):
            began = time.perf_counter()
            decrypt()
            taken.append(time.perf_counter() - began)

    with ThreadPoolExecutor(callers) as threads:
        working = [threads.submit(work, calls // callers) for _ in range(callers)]
        everybody.wait()
        began = time.perf_counter()
        for each in working:
            each.result()
        seconds = time.perf_counter() - began
    percentiles = statistics.quantiles(taken, n=100)
    found = {"per_second": len(taken) / seconds, "p50": percentiles[49], "p99": percentiles[98]}
    print(json.dumps(found))


@contextmanager
def machines(directory: Path) -> Iterator[tuple[Way, Way, str, ProcessTree]]:
    """Everything that runs: plain boto3's way, the proxy's, a key, the pair's processes."""
    with ExitStack() as stack:
        metadata = stack.enter_context(serving_metadata(MetadataService(region=REGION)))
        nsm = directory / "nsm.sock"
        stack.enter_context(started([sys.executable, "-m", __spec__.name, "--nsm", str(nsm)]))
        access_key = "ASIA0000000000000000"  # the first that the metadata service gives
        metadata.expirations[access_key] = float("inf")
        known = known_key(metadata, access_key)
        assert known is not None
        del metadata.expirations[access_key]
        credentials = {
            "AWS_ACCESS_KEY_ID": access_key,
            "AWS_SECRET_ACCESS_KEY": known.secret_access_key,
            "AWS_SESSION_TOKEN": known.session_token or "",
            "AWS_DEFAULT_REGION": REGION,
        }
        names = ["--name", HOST, "--name", "localhost"]
        kms = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.support.kms_server", "--directory", str(directory)),
                *("--access-key", access_key, "--secret-key", known.secret_access_key),
                *("--session-token", known.session_token or "", *names),
            ],
            stdout=subprocess.PIPE,
        )
        stack.callback(kms.wait)
        stack.callback(kms.terminate)
        assert kms.stdout is not None
        about: dict[str, Any] = json.loads(kms.stdout.readline())
        port = stack.enter_context(reserved_port())
        other_port = stack.enter_context(reserved_port())
        rule = {"address": HOST, "port": 443}
        files = {
            "parent": {
                "listen": f"unix://{directory}/link.sock?cid={CID}",
                "allowlist": [{**rule, "dial": f"127.0.0.1:{about['port']}", "private": True}],
                "credentials": {"imds": f"http://127.0.0.1:{metadata.port}", "enclaves": [CID]},
            },
            "enclave": {
                "parent": f"unix://{directory}/link.sock",
                "allowlist": [rule],
                "shim": {"http_proxy": None, "streams": f"{directory}/streams.sock"},
                "attestation": {"device": str(nsm)},
                "credentials": {"listen": f"127.0.0.1:{other_port}", "region": REGION},
                "kms": {"listen": f"127.0.0.1:{port}", "ca": about["ca"]},
            },
        }
        roots = []
        for side, content in files.items():
            file = directory / f"{side}.yaml"
            file.write_text(json.dumps(content))
            command = [sys.executable, "-m", "vsockproxy", side, "--config", str(file)]
            roots.append(stack.enter_context(started(command)))
        plain = Way(
            "plain boto3",
            f"https://localhost:{about['port']}",
            {**credentials, "AWS_CA_BUNDLE": about["ca"]},
        )
        proxied = Way("through the proxy", f"http://127.0.0.1:{port}", credentials)
        _wait_until_it_works(proxied)
        yield plain, proxied, about["symmetric_key"], ProcessTree(roots)


def _wait_until_it_works(way: Way) -> None:
    session = boto3.Session(
        aws_access_key_id="AKIDEXAMPLE", aws_secret_access_key="secret", region_name=REGION
    )
    config = Config(retries={"total_max_attempts": 1})
    client = session.client("kms", endpoint_url=way.url, config=config)
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            client.generate_random(NumberOfBytes=1)
        except Exception:  # whatever it is, as long as it ends
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


def report(callers: int, rounds: dict[str, list[Figures]]) -> float:
    """Print the rounds of all ways; the ratio of the p99."""
    (plain_name, plain), (_, proxied) = rounds.items()
    print(f"{callers} callers".ljust(22) + "decrypts/s     p50 ms     p99 ms")
    for name, figures in rounds.items():
        columns = (
            statistics.median(each.per_second for each in figures),
            statistics.median(each.p50 for each in figures) * 1e3,
            statistics.median(each.p99 for each in figures) * 1e3,
        )
        print(name.ljust(22) + "".join(f"{value:10.1f} " for value in columns))
    ratios: dict[str, float] = {
        name: statistics.median(
            getattr(one, name) / getattr(other, name)
            for one, other in zip(proxied, plain, strict=True)
        )
        for name in ("per_second", "p50", "p99")
    }
    text = "".join(f"{value:10.2f} " for value in ratios.values())
    print(f"/ {plain_name}".ljust(22) + text, end="\n\n", flush=True)
    return ratios["p99"]


def main() -> int:
    """Measure and print; 1 where the bound does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--callers", type=int, nargs="*", default=CALLERS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--call", nargs=2, metavar=("URL", "KEY"), help="be the program")
    parser.add_argument("--nsm", type=Path, metavar="PATH", help="be the module, on a socket")
    options = parser.parse_args()
    if options.call:
        url, key = options.call
        call(url, key, options.callers[0])
        return 0
    if options.nsm:
        with nsm_socket(options.nsm):
            threading.Event().wait()
    is_within = True
    with (
        tempfile.TemporaryDirectory(prefix="vsockproxy-kms-") as directory,
        machines(Path(directory)) as (plain, proxied, key, processes),
    ):
        for callers in options.callers:
            rounds: dict[str, list[Figures]] = {plain.name: [], proxied.name: []}
            cpu_seconds = processes.cpu_seconds()
            for _ in range(options.rounds):
                for way in (plain, proxied):
                    rounds[way.name].append(way.measure(callers, key))
            cpu_seconds = processes.cpu_seconds() - cpu_seconds
            calls = options.rounds * (CALLS.get(callers, 1500) + callers)
            print(f"CPU of both sides, each call: {cpu_seconds / calls * 1e3:.2f} ms")
            ratio = report(callers, rounds)
            is_within = is_within and (callers != JUDGED_CALLERS or ratio <= MOST_RATIO)
    return int(not is_within)


if __name__ == "__main__":
    sys.exit(main())
