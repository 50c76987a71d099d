"""TLS in the worker beside HAProxy's, in one run: `python -m tests.benchmarks.tls`.

Out: the near half of a pair speaks TLS to a destination for programs that do not. The destination
is the same for all, an HAProxy that ends TLS in front of the origin; so are certificate, version
and cipher. `full` handshakes: the destination resumes no session. `resumed`: it does.
"""

import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click

from tests.benchmarks import machine, pairs
from tests.benchmarks.measures import MEBIBYTE, Amounts, Figures, Measure, measures, sample
from tests.benchmarks.pairs import Pair, missing, ready, reserved_port, start_sides
from tests.benchmarks.processes import started
from tests.benchmarks.report import table
from tests.support.certificates import Authority
from vsockproxy.processes import raise_descriptor_limit

LIMIT_SECONDS = 600
REPETITIONS = 5
AMOUNTS = Amounts(bulk_bytes=512 * MEBIBYTE, connections=300)
QUICK = Amounts(bulk_bytes=128 * MEBIBYTE, connections=100)

NAME = "origin.test"
CIPHER = "TLS_AES_128_GCM_SHA256"

_OUT_ENCLAVE = """\
parent: unix://{directory}/link.sock
allowlist:
  - {{address: origin.test, port: 9, private: true}}
shim: {{http_proxy: null, streams: null}}
forwards:
  - {{listen: "tcp://127.0.0.1:{port}", to: "origin.test:9", carrier: {carrier}, tls: {{ca: {ca}}}}}
"""

_DEFAULTS = """\
global
  maxconn 4096
  {settings}
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
"""

_END_OF_TLS = """
listen tls
  bind 127.0.0.1:{port} ssl crt {certificate} ssl-min-ver TLSv1.3 ciphersuites {cipher} {options}
  server origin 127.0.0.1:{origin}
"""

_NEAR = """
listen near
  bind 127.0.0.1:{port}
  server far unix@{directory}/link.sock ssl verify required ca-file {ca} sni str({name}) \
verifyhost {name}
"""

_FAR = """
listen far
  bind unix@{directory}/link.sock
  server destination 127.0.0.1:{destination}
"""


@dataclass(frozen=True, slots=True)
class Files:
    """What both ends of TLS know."""

    ca: Path
    certificate: Path


def _haproxy(
    directory: Path, name: str, text: str, settings: str = ""
) -> AbstractContextManager[int]:
    file = directory / f"{name}.cfg"
    file.write_text(_DEFAULTS.format(settings=settings) + text)
    return started(["haproxy", "-db", "-f", str(file)])


@contextmanager
def _destination(directory: Path, files: Files, origin: int, *, resumes: bool) -> Iterator[int]:
    """TLS in front of the origin; its port."""
    settings = "" if resumes else "tune.ssl.cachesize 0"
    name = "resuming" if resumes else "forgetting"
    with reserved_port() as port:
        text = _END_OF_TLS.format(
            port=port,
            certificate=files.certificate,
            cipher=CIPHER,
            options="" if resumes else "no-tls-tickets",
            origin=origin,
        )
        with _haproxy(directory, name, text, settings):
            yield port


@contextmanager
def _ours(directory: Path, files: Files, destination: int, carrier: str) -> Iterator[Pair]:
    with reserved_port() as port, ExitStack() as stack:
        values = {"directory": directory, "carrier": carrier, "port": port, "ca": files.ca}
        roots = start_sides(stack, directory, destination, _OUT_ENCLAVE.format(**values))
        yield ready("vsockproxy", port, roots)


@contextmanager
def _haproxys(directory: Path, files: Files, destination: int) -> Iterator[Pair]:
    with reserved_port() as port, ExitStack() as stack:
        values = {"directory": directory, "port": port, "ca": files.ca, "name": NAME}
        roots = [
            stack.enter_context(
                _haproxy(directory, "far", _FAR.format(destination=destination, **values))
            ),
            stack.enter_context(_haproxy(directory, "near", _NEAR.format(**values))),
        ]
        yield ready("HAProxy", port, roots)


Start = Callable[[Path, Files, int], AbstractContextManager[Pair]]

SUBJECTS: dict[str, Start] = {
    "vsockproxy, shared": partial(_ours, carrier="shared"),
    "vsockproxy, dedicated": partial(_ours, carrier="dedicated"),
    "HAProxy": _haproxys,
}


def _compare(
    wanted: Sequence[Measure],
    title: str,
    files: Files,
    destination: int,
    repetitions: int,
) -> None:
    with ExitStack() as stack:
        running = {}
        for name, start in SUBJECTS.items():
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            running[name] = stack.enter_context(start(directory, files, destination))
        for measure in wanted:
            taken: dict[str, list[Figures]] = {name: [] for name in running}
            for _ in range(repetitions):
                for name, pair in running.items():
                    taken[name].append(sample(measure, pair)[2])
            print(*table(f"{title}: {measure.title}", taken, ["HAProxy"]), sep="\n")
            print(flush=True)


@click.command()
@click.option("--quick", is_flag=True, help="A short run; its figures are rough.")
@click.option("--repetitions", type=click.IntRange(1, 100), default=REPETITIONS)
@click.option("--only", default="", metavar="TEXT", help="Measures whose name has TEXT in it.")
def main(quick: bool, repetitions: int, only: str) -> None:
    """Measure TLS of the worker beside HAProxy's, on the same work in the same run."""
    if missing("haproxy"):
        raise click.ClickException(missing("haproxy"))
    signal.alarm(LIMIT_SECONDS)
    raise_descriptor_limit()
    print(*(f"{key}: {value}" for key, value in machine.describe().items()), sep="\n")
    print(f"TLS 1.3, {CIPHER}, P-256\nload before: {machine.load_average():.2f}\n")
    wanted = [each for each in measures(QUICK if quick else AMOUNTS) if only in each.name]
    bulk = [each for each in wanted if each.name in ("bulk-up", "bulk-down")]
    handshakes = [each for each in wanted if each.name == "connections-32"]
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        authority = Authority(directory)
        files = Files(authority.file, authority.issue(NAME))
        origin = stack.enter_context(pairs.listening_origin())
        for resumes, title in ((False, "TLS out, full handshakes"), (True, "TLS out, resumed")):
            place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            destination = stack.enter_context(_destination(place, files, origin, resumes=resumes))
            _compare(
                [*([] if resumes else bulk), *handshakes], title, files, destination, repetitions
            )


if __name__ == "__main__":
    main()
