"""The system's resolv.conf, in a mount namespace where the test owns it."""

import subprocess
import sys
from pathlib import Path

import pytest

NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount", "--")
MOUNT_AND_RUN = 'mount --bind "$1" /etc/resolv.conf && exec "$2" -c "$3" "$1"'

PROGRAM = """
import pathlib, sys
from parent_side.resolver import Resolver
from tests.support.dns_server import Addresses, DnsServer
from vsockproxy.config.model import Resolver as ResolverSettings
from vsockproxy.dataplane import loop

resolv_conf = pathlib.Path(sys.argv[1])

def use(server):
    host, port = server.address.split(":")
    resolv_conf.write_text(f"nameserver [{host}]:{port}\\nsearch elsewhere.test\\n")

async def main(first, second):
    names = Resolver(ResolverSettings())
    use(first)
    print(*await names.resolve("a.test", enclave=16))
    use(second)
    print(*await names.resolve("b.test", enclave=16))

with DnsServer() as first, DnsServer() as second:
    first.set("*.test", Addresses("192.0.2.1"))
    second.set("*.test", Addresses("192.0.2.2"))
    loop.run(main(first, second))
    print(*sorted({q.name for q in (*first.questions, *second.questions)}))
"""


def test_resolv_conf_is_followed_when_it_changes(tmp_path: Path) -> None:
    resolv_conf = tmp_path / "resolv.conf"
    resolv_conf.touch()
    mount = 'mount --bind "$1" /etc/resolv.conf'
    try:
        subprocess.run(
            [*NAMESPACE, "sh", "-c", mount, "sh", str(resolv_conf)], check=True, timeout=30
        )
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no mount namespace of our own: {error}")
    result = subprocess.run(
        [*NAMESPACE, "sh", "-c", MOUNT_AND_RUN, "sh", str(resolv_conf), sys.executable, PROGRAM],
        cwd=Path(__file__).parents[2],
        check=False,
        timeout=60,
        capture_output=True,
        text=True,
    )
    assert (result.stdout, result.stderr) == ("192.0.2.1\n192.0.2.2\na.test b.test\n", "")
