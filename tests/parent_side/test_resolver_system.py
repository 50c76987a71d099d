"""The resolver in a process of its own: the system's resolv.conf, and a clean end.

resolv.conf is replaced in a mount namespace.
"""

import subprocess
import sys
from pathlib import Path

import pytest

NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount", "--")
MOUNT_AND_RUN = 'mount --bind "$1" /etc/resolv.conf && exec "$2" -c "$3" "$1"'

PROGRAM = """
import pathlib, sys
from parent_side.lookup_cache import RecordType
from parent_side.resolver import Resolver
from tests.support.dns_server import Addresses, DnsServer, Records
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
    second.set("c.test", Records("TXT", '"c"'))
    found = await names.look_up_records("c.test", RecordType.TXT, enclave=16)
    print(*found.records)

with DnsServer() as first, DnsServer() as second:
    first.set("*.test", Addresses("192.0.2.1"))
    second.set("*.test", Addresses("192.0.2.2"))
    loop.run(main(first, second))
    print(*sorted({q.name for q in (*first.questions, *second.questions)}))
"""

ENDS_WHILE_ASKING = """
import asyncio
from parent_side.lookup_cache import RecordType
from parent_side.resolver import Resolver
from tests.support.dns_server import DnsServer, Silent
from vsockproxy.config.model import Resolver as ResolverSettings
from vsockproxy.dataplane import loop

async def main(server):
    # A machine that is busy with other things is no fault of ours.
    asyncio.get_running_loop().slow_callback_duration = 60
    names = Resolver(ResolverSettings(servers=[server.address], timeout=60))
    for number in range(100):
        name = f"n{number}.test"
        loop.spawn(names.resolve(name, enclave=16), "lookup")
        loop.spawn(names.look_up_records(name, RecordType.TXT, enclave=17), "lookup")
    while not server.questions:
        await loop.sleep(0.001)

with DnsServer() as server:
    server.set("*.test", Silent())
    loop.run(main(server))
print("ended")
"""


def test_a_process_that_ends_while_it_asks_ends_at_once_and_in_silence() -> None:
    result = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", ENDS_WHILE_ASKING],
        cwd=Path(__file__).parents[2],
        check=False,
        timeout=50,
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "ended\n", "")


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
    assert (result.stdout, result.stderr) == (
        "192.0.2.1\n192.0.2.2\nb'\\x01c'\na.test b.test c.test\n",
        "",
    )
