import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsockproxy.addresses import (
    ANY_CID,
    Destination,
    UnixAddress,
    VsockAddress,
    normalise_host,
)
from vsockproxy.config.document import Kind
from vsockproxy.config.load import ConfigErrors, FileNotReadable, load, parse
from vsockproxy.config.model import (
    AllowRule,
    AwsAllowlist,
    AwsRule,
    DenyRule,
    EnclaveConfig,
    EnclaveEntry,
    Limits,
    ParentConfig,
)

VECTORS = Path(__file__).parents[2] / "vectors"


def report(text: str, kind: Kind | None = None) -> list[str]:
    """The lines that `check` prints for a file `f`."""
    try:
        parse(text.encode(), "f", kind)
    except ConfigErrors as caught:
        errors = caught
    else:
        return []
    assert str(errors) == "\n".join(map(str, errors.errors))
    return [str(error) for error in errors.errors]


def test_a_parents_file_needs_only_listen() -> None:
    document = parse(b"listen: vsock://any:5000\n", "dir/parent.yaml")
    assert document.config == ParentConfig(listen=[VsockAddress(ANY_CID, 5000)])
    assert document.kind == "parent"
    assert document.config.allowlist == []


def test_an_enclaves_file_needs_only_parent() -> None:
    document = parse(b"parent: unix:///run/link.sock\n", "enclave.yaml")
    assert document.config == EnclaveConfig(parent=UnixAddress("/run/link.sock"))
    assert document.config.require_tls
    assert document.kind == "enclave"


def test_a_parent_listens_on_many() -> None:
    document = parse(b"listen: [vsock://any:5000, 'unix:///a?cid=16&mode=0660']\n", "f")
    assert isinstance(document.config, ParentConfig)
    assert document.config.listen == [
        VsockAddress(ANY_CID, 5000),
        UnixAddress("/a", cid=16, mode=0o660),
    ]


def test_values_are_parsed() -> None:
    document = parse(
        b"""\
listen: vsock://any:5000
allowlist:
  - {address: "*.example", ports: [80, 8000-8010], private: true, dial: "[::1]:443"}
denylist:
  - {address: 10.0.0.0/8}
enclaves:
  - {cid: 16, name: web, denylist: [{address: a.example, port: 1}]}
limits: {receive_budget: 1 GiB, idle: 60, connect: 0.5}
""",
        "f",
    )
    config = document.config
    assert isinstance(config, ParentConfig)
    assert config.allowlist == [
        AllowRule(
            address="*.example",
            ports=[80, "8000-8010"],
            private=True,
            dial=Destination(normalise_host("::1"), 443),
        )
    ]
    assert config.denylist == [DenyRule(address="10.0.0.0/8")]
    assert config.enclaves == [
        EnclaveEntry(cid=16, name="web", denylist=[DenyRule(address="a.example", port=1)])
    ]
    assert config.limits == Limits(receive_budget=1024**3, idle=60.0, connect=0.5)
    assert config.require_tls is False


def test_awss_file_loads_as_it_is() -> None:
    document = load(str(VECTORS / "aws" / "vsock-proxy.yaml"))
    assert document.kind == "aws"
    assert isinstance(document.config, AwsAllowlist)
    assert len(document.config.allowlist) == 76
    regions = {rule.address.split(".", 1)[1] for rule in document.config.allowlist}
    assert len(regions) == 38
    assert document.config.allowlist[-1] == AwsRule(
        address="kms-fips.cn-northwest-1.amazonaws.com", port=443
    )
    assert document.location("allowlist[75]") == "vsock-proxy.yaml:77"


SIZES = {
    "an integer": ("301989888", 288 * 1024**2),
    "KiB": ("300000KiB", 300000 * 1024),
    "MiB": ("512MiB", 512 * 1024**2),
    "a space before the unit": ("512 MiB", 512 * 1024**2),
    "GiB": ("1GiB", 1024**3),
    "digits in quotes": ("'301989888'", 288 * 1024**2),
}


@pytest.mark.parametrize(("text", "size_bytes"), SIZES.values(), ids=SIZES)
def test_a_size_is_in_bytes_or_binary_units(text: str, size_bytes: int) -> None:
    config = parse(
        f"listen: vsock://any:1\nlimits: {{receive_budget: {text}}}".encode(), "f"
    ).config
    assert isinstance(config, ParentConfig)
    assert config.limits.receive_budget == size_bytes


FILES = {
    "an empty file": (
        "",
        "f:1: (file): the file is empty: "
        "write listen (a parent's file), parent (an enclave's) or allowlist (AWS's)",
    ),
    "only comments": (
        "# nothing\n\n",
        "f:1: (file): the file is empty: "
        "write listen (a parent's file), parent (an enclave's) or allowlist (AWS's)",
    ),
    "a list at the top": (
        "- a\n",
        "f:1: (file): a list, not keys: "
        "write listen (a parent's file), parent (an enclave's) or allowlist (AWS's)",
    ),
    "text at the top": (
        "hello\n",
        "f:1: (file): 'hello', not keys: "
        "write listen (a parent's file), parent (an enclave's) or allowlist (AWS's)",
    ),
    "none of the keys that name a kind": (
        "mode: enforce\n",
        "f:1: (file): neither listen nor parent: "
        "write listen (a parent's file), parent (an enclave's) or allowlist (AWS's)",
    ),
    "an allowlist and keys that AWS does not have": (
        "allowlist: []\nmode: enforce\n",
        "f:1: (file): neither listen nor parent: "
        "write listen (a parent's file), parent (an enclave's) or allowlist (AWS's)",
    ),
    "listen misspelt": (
        "version: 1\nlisten_: vsock://any:1\nmode: enforce\n",
        "f:2: listen_: unknown key: write listen",
    ),
    "both listen and parent": (
        "listen: vsock://any:1\nparent: vsock://3:1\n",
        "f:2: parent: listen is for a parent's file, parent for an enclave's: remove one of them",
    ),
    "a syntax error": (
        "listen: vsock://any:1\nallowlist:\n  - {address: *.example, port: 443}\n",
        "f:3: allowlist: text that begins with '*' without quotes: put it in quotes, as \"*.name\"",
    ),
}


@pytest.mark.parametrize(("text", "line"), FILES.values(), ids=FILES)
def test_a_file_of_no_kind_has_one_error(text: str, line: str) -> None:
    assert report(text) == [line]


KINDS: dict[str, tuple[str, Kind, list[str]]] = {
    "an enclave's file where a parent's is wanted": (
        "parent: vsock://3:1\n",
        "parent",
        ["f:1: (file): this is an enclave's file: give a parent's file, which has listen"],
    ),
    "a parent's file where an enclave's is wanted": (
        "listen: vsock://any:1\n",
        "enclave",
        ["f:1: (file): this is a parent's file: give an enclave's file, which has parent"],
    ),
    "a parent's file where AWS's is wanted": (
        "listen: vsock://any:1\n",
        "aws",
        ["f:1: (file): this is a parent's file: give AWS's file, which has allowlist"],
    ),
    "no listen in a parent's file": (
        "mode: report\n",
        "parent",
        [
            "f:1: listen: missing: write a list, each item "
            "vsock://CID:PORT, unix:///PATH or tcp://ADDRESS:PORT"
        ],
    ),
    "no parent in an enclave's file": (
        "mode: report\n",
        "enclave",
        ["f:1: parent: missing: write vsock://CID:PORT, unix:///PATH or tcp://ADDRESS:PORT"],
    ),
    "no allowlist in AWS's file": (
        "services: []\n",
        "aws",
        [
            "f:1: services: unknown key: remove it, or write one of allowlist",
            "f:1: allowlist: missing: write a list, each item a mapping with address and port",
        ],
    ),
}


@pytest.mark.parametrize(("text", "kind", "lines"), KINDS.values(), ids=KINDS)
def test_a_file_of_another_kind_is_refused(text: str, kind: Kind, lines: list[str]) -> None:
    assert report(text, kind) == lines


PARENT = "listen: vsock://any:5000\n"
PCR = "0123456789abcdef" * 6

PARENT_VALUES = {
    "an unknown key": ("mod: report", "mod: unknown key: write mode"),
    "an unknown key like nothing": (
        "xyzzy: 1",
        "xyzzy: unknown key: remove it, or write one of listen, version, allowlist, denylist, "
        "mode, mixed, require_tls, enclaves, attestation, forwards, ingress, resolver, "
        "credentials, upstream_proxy, source_address, workers, limits, drain, "
        "forbidden_streams, admin, log",
    ),
    "an unknown key with a hyphen": (
        "require-tls: true",
        "require-tls: unknown key: write require_tls",
    ),
    "a later version": ("version: 2", "version: 2 is unknown: write 1"),
    "a word of no list": (
        "mode: enforced",
        "mode: 'enforced' is none of enforce, report: write enforce",
    ),
    "a word like none of a list": (
        "mode: xyzzy",
        "mode: 'xyzzy' does not fit: write enforce or report",
    ),
    "yes for true": (
        "require_tls: yes",
        "require_tls: 'yes' is neither true nor false: write true",
    ),
    "off for false": (
        "require_tls: off",
        "require_tls: 'off' is neither true nor false: write false",
    ),
    "text for true or false": (
        "require_tls: maybe",
        "require_tls: 'maybe' is neither true nor false: write true or false",
    ),
    "a number for true": ("require_tls: 1", "require_tls: 1 does not fit: write true or false"),
    "nothing for a list": (
        "allowlist:",
        "allowlist: nothing (null) does not fit: "
        "write a list, each item a mapping with address, or remove the key",
    ),
    "a mapping for a list": (
        "allowlist: {address: a.b, port: 1}",
        "allowlist: a mapping does not fit: write a list, each item a mapping with address",
    ),
    "text for a mapping": ("log: stderr", "log: 'stderr' does not fit: write a mapping"),
    "a value of a section in its place": (
        "log: json",
        "log: 'json' does not fit: write log: {format: json}",
    ),
    "true for a mapping": ("log: true", "log: true does not fit: write log: {}"),
    "yes for a mapping": ("log: yes", "log: 'yes' does not fit: write log: {}"),
    "true for a mapping that needs a key": (
        "credentials: true",
        "credentials: true does not fit: write a mapping with enclaves",
    ),
    "a key of the enclave's file": (
        "kms: {}",
        "kms: no key of a parent's file: write it in the enclave's",
    ),
    "a key like one of the enclave's file": (
        "kmss: {}",
        "kmss: unknown key: remove it, or write one of listen, version, allowlist, denylist, "
        "mode, mixed, require_tls, enclaves, attestation, forwards, ingress, resolver, "
        "credentials, upstream_proxy, source_address, workers, limits, drain, "
        "forbidden_streams, admin, log",
    ),
    "a list for a number": (
        "workers: [1]",
        "workers: a list does not fit: write an integer within 1-256 or auto",
    ),
    "workers: 0": (
        "workers: 0",
        "workers: 0 is out of range: write an integer within 1-256 or auto",
    ),
    "true for a number": (
        "workers: true",
        "workers: true does not fit: write an integer within 1-256 or auto",
    ),
    "a fraction for an integer": (
        "limits: {streams: 1.5}",
        "limits.streams: 1.5 does not fit: write an integer within 1-65536",
    ),
    "too many streams": (
        "limits: {streams: 65537}",
        "limits.streams: 65537 is out of range: write an integer within 1-65536",
    ),
    "a negative time": (
        "limits: {idle: -1}",
        "limits.idle: -1 is out of range: write a number within 0-86400",
    ),
    "no time to connect": (
        "limits: {connect: 0}",
        "limits.connect: 0 is out of range: write a number above 0 and up to 86400",
    ),
    "infinity": (
        "limits: {idle: .inf}",
        "limits.idle: '.inf' is text, not a number: write a number within 0-86400, without quotes",
    ),
    "a unit of time": (
        "limits: {idle: 5s}",
        "limits.idle: '5s' is text, not a number: write a number within 0-86400, without quotes",
    ),
    "a decimal unit of size": (
        "limits: {receive_budget: 512MB}",
        "limits.receive_budget: '512MB' has an unknown unit: write 512MiB",
    ),
    "a letter as unit of size": (
        "limits: {receive_budget: 1 g}",
        "limits.receive_budget: '1 g' has an unknown unit: write 1GiB",
    ),
    "a negative size": (
        "limits: {receive_budget: -1}",
        "limits.receive_budget: '-1' is no size: write a number of bytes, or one with KiB or MiB",
    ),
    "a fraction of a size": (
        "limits: {receive_budget: 1.5}",
        "limits.receive_budget: 1.5 is no text: write a number of bytes, or one with KiB or MiB",
    ),
    "a size beyond reason": (
        "limits: {receive_budget: 1025GiB}",
        "limits.receive_budget: '1025GiB' is too much: write a size of at most 1024GiB",
    ),
    "a budget that does not cover the streams": (
        "limits: {receive_budget: 100MiB}",
        "limits.receive_budget: too small for 16384 streams: "
        "write at least 272MiB, or fewer streams",
    ),
    "more streams than the default budget covers": (
        "limits: {streams: 65536}",
        "limits.receive_budget: too small for 65536 streams: "
        "write at least 1040MiB, or fewer streams",
    ),
    "a listener that is no endpoint": (
        "forwards: [{listen: 8000, to: 'a.b:1'}]",
        "forwards[0].listen: 8000 is no text: "
        "write vsock://CID:PORT, unix:///PATH or tcp://ADDRESS:PORT",
    ),
    "a forward without a destination": (
        "forwards: [{listen: 'vsock://any:1'}]",
        "forwards[0].to: missing: write HOST:PORT",
    ),
    "a forward on TCP": (
        "forwards: [{listen: 'tcp://127.0.0.1:1', to: 'a.b:1'}]",
        "forwards[0].listen: a forward of the parent listens for enclaves, not on TCP: "
        "write vsock://any:PORT or unix:///PATH",
    ),
    "a destination that is not in normal form": (
        "forwards: [{listen: 'vsock://any:1', to: 'A.b.:1'}]",
        "forwards[0].to: 'A.b.:1' is not in normal form: write a.b:1",
    ),
    "a forward where the parent listens": (
        "forwards: [{listen: 'vsock://3:5000', to: 'a.b:1'}]",
        "forwards[0].listen: vsock://3:5000 is taken by listen: write another address or port",
    ),
    "two forwards on one socket": (
        "forwards: [{listen: 'unix:///a', to: 'a.b:1'}, {listen: 'unix:///a?cid=5', to: 'a.b:1'}]",
        "forwards[1].listen: unix:///a?cid=5 is taken by forwards[0].listen: "
        "write another address or port",
    ),
    "an enclave with neither CID nor PCRs": (
        "enclaves: [{name: web}]",
        "enclaves[0].cid: missing: write an integer within 0-4294967294, or pcrs: {0: 96 "
        "hexadecimal digits}",
    ),
    "a PCR that there is none": (
        f"enclaves: [{{pcrs: {{32: {PCR}}}}}]",
        "enclaves[0].pcrs.32: '32' does not fit: write the number of a PCR within 0-31",
    ),
    "a PCR with a zero in front": (
        f"enclaves: [{{pcrs: {{00: {PCR}}}}}]",
        "enclaves[0].pcrs.00: '00' does not fit: write the number of a PCR within 0-31",
    ),
    "a PCR that is too short": (
        "enclaves: [{pcrs: {0: abcd}}]",
        "enclaves[0].pcrs.0: 'abcd' does not fit: write a PCR as 96 hexadecimal digits (SHA-384)",
    ),
    "a PCR of zeros": (
        f"enclaves: [{{pcrs: {{8: {'0' * 96}}}}}]",
        "enclaves[0].pcrs.8: PCR8 of zeros: nothing was measured into it, as in debug mode: write "
        "the measurement of your image, or attestation: {allow_debug: true}",
    ),
    "the same PCRs twice": (
        f"enclaves: [{{pcrs: {{0: {PCR}}}}}, {{pcrs: {{0: {PCR.upper()}}}}}]",
        "enclaves[1].pcrs: these measurements have an entry already, enclaves[0]: write one entry "
        "for them",
    ),
    "PCRs behind fewer of them": (
        f"enclaves: [{{pcrs: {{0: {PCR}}}}}, {{cid: 16, pcrs: {{0: {PCR}, 8: {PCR}}}}}]",
        "enclaves[1].pcrs: enclaves[0] is for all that this is for, and the first entry counts: "
        "write it before enclaves[0]",
    ),
    "PCRs behind their CID alone": (
        f"enclaves: [{{cid: 16}}, {{cid: 16, pcrs: {{0: {PCR}}}}}]",
        "enclaves[1].pcrs: enclaves[0] is for all that this is for, and the first entry counts: "
        "write it before enclaves[0]",
    ),
    "an instance that is none": (
        "attestation: {instance: host}",
        "attestation.instance: 'host' does not fit: write the id of an instance, as "
        "i-0123456789abcdef0",
    ),
    "a CID out of range": (
        "enclaves: [{cid: 4294967295}]",
        "enclaves[0].cid: 4294967295 is out of range: write an integer within 0-4294967294",
    ),
    "two entries for a CID": (
        "enclaves: [{cid: 16}, {cid: 17}, {cid: 16}]",
        "enclaves[2].cid: CID 16 has an entry already, enclaves[0]: write one entry for each CID",
    ),
    "a name with a space": (
        "enclaves: [{cid: 16, name: a b}]",
        "enclaves[0].name: 'a b' does not fit: "
        "write a name of up to 64 letters, digits, '_', '.' and '-'",
    ),
    "a number as a name": (
        "enclaves: [{cid: 16, name: 7}]",
        "enclaves[0].name: 7 is no text: "
        "write a name of up to 64 letters, digits, '_', '.' and '-', in quotes",
    ),
    "a DNS server by name": (
        "resolver: {servers: [dns.example]}",
        "resolver.servers[0]: 'dns.example' is no IP address: write an IPv4 or IPv6 address",
    ),
    "a DNS server by name and port": (
        "resolver: {servers: ['dns.example:53']}",
        "resolver.servers[0]: 'dns.example:53' is no IP address: write ADDRESS or ADDRESS:PORT",
    ),
    "no DNS server": (
        "resolver: {servers: []}",
        "resolver.servers: the list is empty: "
        "write a list, each item ADDRESS or ADDRESS:PORT, or remove the key",
    ),
    "a list of fixed hosts": (
        "resolver: {hosts: [a.b]}",
        "resolver.hosts: a list does not fit: write a mapping",
    ),
    "a fixed host that is a pattern": (
        "resolver: {hosts: {'*.a': [127.0.0.1]}}",
        "resolver.hosts.*.a: '*.a' is a pattern, where one host has to stand: "
        "write each host, or use the allowlist of a parent's or an enclave's file",
    ),
    "a fixed host without an address": (
        "resolver: {hosts: {a.b: []}}",
        "resolver.hosts.a.b: the list is empty: "
        "write a list, each item an IPv4 or IPv6 address, or remove the key",
    ),
    "a fixed host with a name": (
        "resolver: {hosts: {a.b: [c.d]}}",
        "resolver.hosts.a.b[0]: 'c.d' is no IP address: write an IPv4 or IPv6 address",
    ),
    "a fixed address that is not in normal form": (
        "resolver: {hosts: {a.b: ['::0001']}}",
        "resolver.hosts.a.b[0]: '::0001' is not in normal form: write ::1",
    ),
    "a denied host with both port and ports": (
        "denylist: [{address: a.b, port: 1, ports: [2]}]",
        "denylist[0].ports: both port and ports: write all of them in ports, and remove port",
    ),
}


@pytest.mark.parametrize(("yaml", "error"), PARENT_VALUES.values(), ids=PARENT_VALUES)
def test_a_wrong_value_of_a_parents_file_is_reported(yaml: str, error: str) -> None:
    assert report(f"{PARENT}{yaml}\n") == [f"f:2: {error}"]


RULES = {
    "no address": (
        "port: 443",
        "allowlist[0].address: missing: write a name, *.NAME, **.NAME, an IP address or a CIDR",
    ),
    "an address that is a number": (
        "address: 1.5, port: 443",
        "allowlist[0].address: 1.5 is no text: "
        "write a name, *.NAME, **.NAME, an IP address or a CIDR",
    ),
    "a star alone": (
        "address: '*', port: 443",
        "allowlist[0].address: '*' would match every name: "
        "write the names, or *.NAME for those below one",
    ),
    "two stars alone": (
        "address: '**', port: 443",
        "allowlist[0].address: '**' would match every name: "
        "write the names, or *.NAME for those below one",
    ),
    "a star and a dot": (
        "address: '*.', port: 443",
        "allowlist[0].address: '*.' would match every name: "
        "write the names, or *.NAME for those below one",
    ),
    "a star inside": (
        "address: a.*.b, port: 443",
        "allowlist[0].address: 'a.*.b' has a '*' that is no whole leading label: "
        "write *.NAME for one label or **.NAME for any depth",
    ),
    "a star in a label": (
        "address: 's3*.b', port: 443",
        "allowlist[0].address: 's3*.b' has a '*' that is no whole leading label: "
        "write *.NAME for one label or **.NAME for any depth",
    ),
    "two wildcards": (
        "address: '*.*.b', port: 443",
        "allowlist[0].address: '*.*.b' has a '*' that is no whole leading label: "
        "write *.NAME for one label or **.NAME for any depth",
    ),
    "a wildcard of addresses": (
        "address: '*.1.2.3.4', port: 443",
        "allowlist[0].address: '*.1.2.3.4' has a wildcard in an address: "
        "write a CIDR, as 10.0.0.0/8",
    ),
    "upper case": (
        "address: KMS.Example, port: 443",
        "allowlist[0].address: 'KMS.Example' is not in normal form: write kms.example",
    ),
    "a trailing dot": (
        "address: kms.example., port: 443",
        "allowlist[0].address: 'kms.example.' is not in normal form: write kms.example",
    ),
    "a U-label below a wildcard": (
        "address: '*.bücher.example', port: 443",
        "allowlist[0].address: '*.bücher.example' is not in normal form: "
        "write *.xn--bcher-kva.example",
    ),
    "an IPv6 address in many words": (
        "address: '2001:DB8:0:0:0:0:0:1', port: 443",
        "allowlist[0].address: '2001:DB8:0:0:0:0:0:1' is not in normal form: write 2001:db8::1",
    ),
    "an octal address": (
        "address: 010.0.0.1, port: 443",
        "allowlist[0].address: '010.0.0.1' is no canonical IPv4 address: "
        "write four decimal numbers within 0-255, without leading zeros",
    ),
    "host bits": (
        "address: 10.20.1.0/16, port: 443",
        "allowlist[0].address: '10.20.1.0/16' has host bits set: write 10.20.0.0/16",
    ),
    "host bits of IPv6": (
        "address: '2001:db8::1/32', port: 443",
        "allowlist[0].address: '2001:db8::1/32' has host bits set: write 2001:db8::/32",
    ),
    "a prefix out of range": (
        "address: 10.0.0.0/33, port: 443",
        "allowlist[0].address: '33' is no prefix length: write a number within 0-32",
    ),
    "a netmask": (
        "address: 10.0.0.0/255.0.0.0, port: 443",
        "allowlist[0].address: '255.0.0.0' is no prefix length: write a number within 0-32",
    ),
    "a CIDR of one address": (
        "address: 10.0.0.1/32, port: 443",
        "allowlist[0].address: '10.0.0.1/32' is not in normal form: write 10.0.0.1",
    ),
    "a CIDR of a name": (
        "address: a.b/24, port: 443",
        "allowlist[0].address: 'a.b/24' is no CIDR: write a network as 10.20.0.0/16, or a name",
    ),
    "a URL": (
        "address: 'https://a.b', port: 443",
        "allowlist[0].address: 'https:' is neither a name nor an IPv6 address: "
        "write a name, an IPv4 or an IPv6 address, without a port",
    ),
    "an address with a port": (
        "address: 'a.b:443', port: 443",
        "allowlist[0].address: 'a.b:443' is neither a name nor an IPv6 address: "
        "write a name, an IPv4 or an IPv6 address, without a port",
    ),
    "too long for any pattern": (
        f"address: {'a' * 300}, port: 443",
        "allowlist[0].address: a pattern of 300 characters is too long: at most 256",
    ),
    "neither port nor ports": (
        "address: a.b",
        "allowlist[0]: neither port nor ports: add port: 443, or the ports that are needed",
    ),
    "both port and ports": (
        "address: a.b, port: 443, ports: [80]",
        "allowlist[0].ports: both port and ports: write all of them in ports, and remove port",
    ),
    "port 0": (
        "address: a.b, port: 0",
        "allowlist[0].port: 0 is out of range: write an integer within 1-65535",
    ),
    "a port that AWS would take for 443": (
        "address: a.b, port: 65979",
        "allowlist[0].port: 65979 is out of range: write an integer within 1-65535",
    ),
    "a port in quotes": (
        "address: a.b, port: '443'",
        "allowlist[0].port: '443' is text, not a number: "
        "write an integer within 1-65535, without quotes",
    ),
    "an octal port": (
        "address: a.b, port: 0o17",
        "allowlist[0].port: '0o17' is text, not a number: "
        "write an integer within 1-65535, without quotes",
    ),
    "a sexagesimal port": (
        "address: a.b, port: 1:30",
        "allowlist[0].port: '1:30' is text, not a number: "
        "write an integer within 1-65535, without quotes",
    ),
    "a list of ports in port": (
        "address: a.b, port: [443]",
        "allowlist[0].port: a list does not fit: write an integer within 1-65535",
    ),
    "no ports": (
        "address: a.b, port: 1, ports: []",
        "allowlist[0].ports: the list is empty: write a list, each item an integer within 1-65535 "
        "or a range, as 6432-6440, or remove the key",
    ),
    "one port in ports": (
        "address: a.b, ports: 443",
        "allowlist[0].ports: 443 does not fit: write a list, each item an integer within 1-65535 "
        "or a range, as 6432-6440",
    ),
    "a port in ports in quotes": (
        "address: a.b, ports: ['443']",
        "allowlist[0].ports[0]: '443' is text, not a number: write an integer within 1-65535 "
        "or a range, as 6432-6440, without quotes",
    ),
    "an open range": (
        "address: a.b, ports: [1, 443-]",
        "allowlist[0].ports[1]: '443-' does not fit: write an integer within 1-65535 "
        "or a range, as 6432-6440",
    ),
    "a range that falls": (
        "address: a.b, ports: [1, 443-80]",
        "allowlist[0].ports[1]: '443-80' is no port range: "
        "write LOW-HIGH with LOW not above HIGH, within 1-65535",
    ),
    "a range beyond ports": (
        "address: a.b, ports: [1-65536]",
        "allowlist[0].ports[0]: '1-65536' is no port range: "
        "write LOW-HIGH with LOW not above HIGH, within 1-65535",
    ),
    "a range from 0": (
        "address: a.b, ports: [0-80]",
        "allowlist[0].ports[0]: '0-80' is no port range: "
        "write LOW-HIGH with LOW not above HIGH, within 1-65535",
    ),
    "a range with a leading zero": (
        "address: a.b, ports: [080-90]",
        "allowlist[0].ports[0]: '080-90' is no port range: "
        "write LOW-HIGH with LOW not above HIGH, within 1-65535",
    ),
    "a range that ends in a line feed": (
        'address: a.b, ports: ["80-90\\n"]',
        "allowlist[0].ports[0]: '80-90\\n' is no port range: "
        "write LOW-HIGH with LOW not above HIGH, within 1-65535",
    ),
    "metadata on a name": (
        "address: a.b, port: 80, metadata: true",
        "allowlist[0].metadata: 'a.b' is no single metadata address: "
        "write a rule with the address itself, as 169.254.169.254",
    ),
    "metadata on a network": (
        "address: 169.254.0.0/16, port: 80, metadata: true",
        "allowlist[0].metadata: '169.254.0.0/16' is no single metadata address: "
        "write a rule with the address itself, as 169.254.169.254",
    ),
    "metadata on another address": (
        "address: 10.0.0.1, port: 80, metadata: true",
        "allowlist[0].metadata: '10.0.0.1' is no single metadata address: "
        "write a rule with the address itself, as 169.254.169.254",
    ),
    "private on a metadata address": (
        "address: 'fd00:ec2::254', port: 80, private: true",
        "allowlist[0].private: private does not open the metadata address fd00:ec2::254: "
        "write metadata: true, if programs may have this instance's role",
    ),
    "a dialled host without a port": (
        "address: a.b, port: 443, dial: c.d",
        "allowlist[0].dial: 'c.d' has no port: write c.d:PORT",
    ),
    "an unknown key": (
        "address: a.b, port: 443, privat: true",
        "allowlist[0].privat: unknown key: write private",
    ),
    "a key given twice": (
        "address: a.b, port: 443, port: 80",
        "allowlist[0].port: given again (first in line 3): write it once",
    ),
}


@pytest.mark.parametrize("top", [PARENT, "parent: vsock://3:5000\n"], ids=["parent", "enclave"])
@pytest.mark.parametrize(("rule", "error"), RULES.values(), ids=RULES)
def test_a_wrong_rule_is_reported_on_both_sides(top: str, rule: str, error: str) -> None:
    assert report(f"{top}allowlist:\n  - {{{rule}}}\n") == [f"f:3: {error}"]


@pytest.mark.parametrize(
    "rule",
    [
        "address: a.b, ports: [443]",
        "address: a.b, ports: [1-65535]",
        "address: '**.b', ports: [443, 8000-8000]",
        "address: 0.0.0.0/0, port: 1",
        "address: '2001:db8::/32', port: 1",
        "address: 169.254.169.254, port: 80, metadata: true",
        "address: 'fd00:ec2::254', port: 80, metadata: true",
        "address: '*.b', port: 443, dial: 'vpce.b:443', private: true",
        "address: _x.b, port: 1, require_tls: false, names: false",
        "address: a.b, port: 443, ports: ~",
    ],
)
def test_a_rule_is_accepted(rule: str) -> None:
    assert report(f"{PARENT}allowlist:\n  - {{{rule}}}\n") == []


def test_a_deny_rule_may_cover_every_port() -> None:
    assert report(f"{PARENT}denylist: [{{address: a.b}}, {{address: 10.0.0.0/8, port: 1}}]\n") == []


PARENT_LISTENERS = {
    "no endpoint": (
        "5000",
        "listen: 5000 is no text: write vsock://CID:PORT, unix:///PATH or tcp://ADDRESS:PORT",
    ),
    "nothing": (
        "",
        "listen: nothing (null) does not fit: write a list, each item "
        "vsock://CID:PORT, unix:///PATH or tcp://ADDRESS:PORT, or remove the key",
    ),
    "an unknown scheme": (
        "http://a",
        "listen: 'http://a' is no endpoint: "
        "write vsock://CID:PORT, unix:///PATH or tcp://ADDRESS:PORT",
    ),
    "TCP": (
        "tcp://127.0.0.1:5000",
        "listen: enclaves cannot connect over TCP, and a link has no encryption of its own: "
        "write vsock://any:PORT or unix:///PATH",
    ),
    "TCP in a list": (
        "[vsock://any:1, tcp://127.0.0.1:5000]",
        "listen[1]: enclaves cannot connect over TCP, and a link has no encryption of its own: "
        "write vsock://any:PORT or unix:///PATH",
    ),
    "an empty list": (
        "[]",
        "listen: the list is empty: write a list, each item "
        "vsock://CID:PORT, unix:///PATH or tcp://ADDRESS:PORT, or remove the key",
    ),
    "one port twice": (
        "[vsock://3:1, vsock://any:1]",
        "listen[1]: vsock://any:1 is taken by listen[0]: write another address or port",
    ),
}


@pytest.mark.parametrize(("value", "error"), PARENT_LISTENERS.values(), ids=PARENT_LISTENERS)
def test_a_wrong_listener_of_a_parent_is_reported(value: str, error: str) -> None:
    assert report(f"listen: {value}\n") == [f"f:1: {error}"]


ENCLAVE_VALUES = {
    "too many links": (
        "links: 17",
        "links: 17 is out of range: write an integer within 1-16",
    ),
    "a block that is no network": (
        "shim: {names_block: 198.18.0.0}",
        "shim.names_block: '198.18.0.0' is not in normal form: write 198.18.0.0/32",
    ),
    "a block with host bits": (
        "shim: {names_block: 198.18.0.1/15}",
        "shim.names_block: '198.18.0.1/15' is not in normal form: write 198.18.0.0/15",
    ),
    "a block of IPv6": (
        "shim: {names_block: 'fd00::/64'}",
        "shim.names_block: 'fd00::/64' is no IPv4 network: write one as 198.18.0.0/15",
    ),
    "a proxy on a unix socket": (
        "shim: {http_proxy: 'unix:///a'}",
        "shim.http_proxy: 'unix:///a' is no TCP address: write tcp://ADDRESS:PORT",
    ),
    "a proxy without a port": (
        "shim: {http_proxy: 127.0.0.1}",
        "shim.http_proxy: '127.0.0.1' has no port: write 127.0.0.1:PORT",
    ),
    "a stream socket by a relative path": (
        "shim: {streams: streams.sock}",
        "shim.streams: 'streams.sock' does not fit: "
        "write the absolute path of a socket, at most 107 characters without spaces",
    ),
    "a stream socket that is a directory": (
        "shim: {streams: /run/}",
        "shim.streams: '/run/' does not fit: "
        "write the absolute path of a socket, at most 107 characters without spaces",
    ),
    "a stream socket with a line break": (
        'shim: {streams: "/run/a\\n"}',
        "shim.streams: '/run/a\\n' does not fit: "
        "write the absolute path of a socket, at most 107 characters without spaces",
    ),
    "a stream socket of 108 bytes": (
        f"shim: {{streams: /{107 * 's'}}}",
        f"shim.streams: '/{79 * 's'}…' does not fit: "
        "write the absolute path of a socket, at most 107 characters without spaces",
    ),
    "a forward where the stream socket is": (
        "shim: {streams: /a}\nforwards: [{listen: 'unix:///a', to: 'a.b:1'}]",
        "forwards[0].listen: unix:///a is taken by shim.streams: write another address or port",
    ),
    "a forward on vsock": (
        "forwards: [{listen: 'vsock://any:1', to: 'a.b:1'}]",
        "forwards[0].listen: a forward of the enclave listens for programs inside, not on vsock: "
        "write tcp://127.0.0.1:PORT or unix:///PATH",
    ),
    "a forward where the proxy listens by default": (
        "forwards: [{listen: 'tcp://127.0.0.1:3128', to: 'a.b:1'}]",
        "forwards[0].listen: tcp://127.0.0.1:3128 is taken by shim.http_proxy: "
        "write another address or port",
    ),
    "a forward on every address where the proxy listens": (
        "forwards: [{listen: 'tcp://0.0.0.0:3128', to: 'a.b:1'}]",
        "forwards[0].listen: tcp://0.0.0.0:3128 is taken by shim.http_proxy: "
        "write another address or port",
    ),
    "localhost where the proxy listens": (
        "forwards: [{listen: 'tcp://localhost:3128', to: 'a.b:1'}]",
        "forwards[0].listen: tcp://localhost:3128 is taken by shim.http_proxy: "
        "write another address or port",
    ),
    "an unknown carrier": (
        "forwards: [{listen: 'unix:///a', to: 'a.b:1', carrier: own}]",
        "forwards[0].carrier: 'own' does not fit: write dedicated or shared",
    ),
    "a key of the parent's file": (
        "mixed: drop",
        "mixed: no key of an enclave's file: write it in the parent's",
    ),
}


@pytest.mark.parametrize(("yaml", "error"), ENCLAVE_VALUES.values(), ids=ENCLAVE_VALUES)
def test_a_wrong_value_of_an_enclaves_file_is_reported(yaml: str, error: str) -> None:
    (line,) = report(f"parent: vsock://3:5000\n{yaml}\n")
    assert line.partition(": ")[2] == error


LINKS = {
    "TCP": (
        "tcp://127.0.0.1:5000",
        "f:1: parent: a link over TCP has no encryption of its own: "
        "write vsock://3:PORT or unix:///PATH",
    ),
    "any CID": (
        "vsock://any:5000",
        "f:1: parent: any is no CID to connect to: write vsock://3:5000",
    ),
}


@pytest.mark.parametrize(("value", "line"), LINKS.values(), ids=LINKS)
def test_an_enclave_connects_to_vsock_or_unix(value: str, line: str) -> None:
    assert report(f"parent: {value}\n") == [line]


ENCLAVE_ACCEPTED = {
    "no proxy": "shim: {http_proxy: null}",
    "a forward where no proxy listens": (
        "shim: {http_proxy: ~}\nforwards: [{listen: 'tcp://127.0.0.1:3128', to: 'a.b:1'}]"
    ),
    "forwards on ports that the kernel chooses": (
        "forwards: [{listen: 'tcp://[::1]:0', to: 'a.b:1'}, {listen: 'tcp://[::1]:0', to: 'a.b:1'}]"
    ),
    "one port on two addresses": (
        "forwards: [{listen: 'tcp://127.0.0.2:1', to: 'a.b:1'},"
        " {listen: 'tcp://127.0.0.3:1', to: 'a.b:1'}]"
    ),
    "a proxy with a scheme": "shim: {http_proxy: 'tcp://[::1]:3128'}",
    "a stream socket of 107 bytes": f"shim: {{streams: /{106 * 's'}}}",
    "no stream socket": "shim: {streams: null}",
}


@pytest.mark.parametrize("yaml", ENCLAVE_ACCEPTED.values(), ids=ENCLAVE_ACCEPTED)
def test_an_enclaves_file_is_accepted(yaml: str) -> None:
    assert report(f"parent: vsock://3:5000\n{yaml}\n") == []


AWS_VALUES = {
    "an unknown key, which AWS ignores": (
        "allowlist: []\nservices: []\n",
        "f:2: services: unknown key: remove it, or write one of allowlist",
    ),
    "an unknown key of a rule, which AWS ignores": (
        "allowlist:\n  - {address: a.b, port: 443, ports: [80]}\n",
        "f:2: allowlist[0].ports: unknown key: write port",
    ),
    "a port that AWS takes for 443": (
        "allowlist:\n  - {address: a.b, port: 65979}\n",
        "f:2: allowlist[0].port: 65979 is out of range: write an integer within 1-65535",
    ),
    "a wildcard, which AWS takes for a name": (
        "allowlist:\n  - {address: '*.b', port: 443}\n",
        "f:2: allowlist[0].address: '*.b' is a pattern, where one host has to stand: "
        "write each host, or use the allowlist of a parent's or an enclave's file",
    ),
    "upper case, which AWS compares": (
        "allowlist:\n  - {address: A.b, port: 443}\n",
        "f:2: allowlist[0].address: 'A.b' is not in normal form: write a.b",
    ),
    "no port": (
        "allowlist:\n  - {address: a.b}\n",
        "f:2: allowlist[0].port: missing: write an integer within 1-65535",
    ),
}


@pytest.mark.parametrize(("text", "line"), AWS_VALUES.values(), ids=AWS_VALUES)
def test_what_aws_ignores_in_its_file_is_an_error(text: str, line: str) -> None:
    assert report(text) == [line]


def test_every_error_of_a_file_is_reported_in_the_order_of_lines() -> None:
    text = """\
mode: enforced
allowlist:
  - {address: A.b, port: 70000, private: maybe}
  - {address: a.b, port: &x 1, ports: [2]}
  - {address: a.b}
  - *x
listen: [tcp://127.0.0.1:1, vsock://any:1, nothing]
enclaves:
  - {cid: 4, allowlist: [{address: '*'}]}
  - {cid: 4, nam: x}
workers: many
"""
    assert report(text) == [
        "f:1: mode: 'enforced' is none of enforce, report: write enforce",
        "f:3: allowlist[0].address: 'A.b' is not in normal form: write a.b",
        "f:3: allowlist[0].port: 70000 is out of range: write an integer within 1-65535",
        "f:3: allowlist[0].private: 'maybe' is neither true nor false: write true or false",
        "f:4: allowlist[1].port: an anchor (&x): remove it, or put text with '&' in quotes",
        "f:4: allowlist[1].ports: both port and ports: write all of them in ports, and remove port",
        "f:5: allowlist[2]: neither port nor ports: add port: 443, or the ports that are needed",
        "f:6: allowlist[3]: an alias (*x): write the value, or put text with '*' in quotes",
        "f:7: listen[2]: 'nothing' is no endpoint: "
        "write vsock://CID:PORT, unix:///PATH or tcp://ADDRESS:PORT",
        "f:9: enclaves[0].allowlist[0].address: '*' would match every name: "
        "write the names, or *.NAME for those below one",
        "f:9: enclaves[0].allowlist[0]: neither port nor ports: "
        "add port: 443, or the ports that are needed",
        "f:10: enclaves[1].nam: unknown key: write name",
        "f:10: enclaves[1].cid: CID 4 has an entry already, enclaves[0]: "
        "write one entry for each CID",
        "f:11: workers: 'many' is text, not a number: "
        "write an integer within 1-256 or auto, without quotes",
    ]


def test_a_hundred_errors_are_enough() -> None:
    lines = report(PARENT + "allowlist:\n" + "  - {address: a.b, port: 0}\n" * 150)
    assert len(lines) == 101
    assert lines[0].startswith("f:3: allowlist[0].port: 0 is out of range")
    assert lines[99].startswith("f:102: allowlist[99].port: 0 is out of range")
    assert lines[100] == "f:103: (file): 50 more errors: mend these first"


def test_an_error_shows_a_bounded_part_of_a_value() -> None:
    (line,) = report(f"{PARENT}mode: {'x' * 100_000}\n")
    assert line == f"f:2: mode: '{'x' * 80}…' does not fit: write enforce or report"


def test_an_error_shows_no_control_characters() -> None:
    (line,) = report(PARENT + 'mode: "\\x1b[2J\\n"\n')
    assert line == "f:2: mode: '\\x1b[2J\\n' does not fit: write enforce or report"


def test_a_file_that_is_not_there_cannot_be_read(tmp_path: Path) -> None:
    path = str(tmp_path / "none.yaml")
    with pytest.raises(FileNotReadable) as caught:
        load(path)
    assert str(caught.value) == (
        f"{path}: cannot be read: no such file or directory: check the path and its permissions"
    )


def test_a_directory_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotReadable, match="cannot be read: is a directory"):
        load(str(tmp_path))


def test_a_path_with_a_nul_cannot_be_read() -> None:
    with pytest.raises(FileNotReadable, match="cannot be read: embedded null byte"):
        load("a\0b")


def test_an_endless_file_is_not_read_to_its_end() -> None:
    with pytest.raises(ConfigErrors) as caught:
        load(os.devnull.replace("null", "zero"))
    (error,) = caught.value.errors
    assert error.what == "the file is too large"


def test_errors_name_the_file_as_it_was_given(tmp_path: Path) -> None:
    path = tmp_path / "parent.yaml"
    path.write_text("listen: tcp://127.0.0.1:1\n")
    given_path = os.path.relpath(path)
    with pytest.raises(ConfigErrors) as caught:
        load(given_path, "parent")
    (error,) = caught.value.errors
    assert (error.file, error.line, error.path) == (given_path, 1, "listen")


fragments = st.sampled_from(
    [
        "listen: vsock://any:1\n",
        "parent: unix:///a\n",
        "allowlist:\n",
        "  - {address: a.b, port: 1}\n",
        "  - address: '*.b'\n",
        "    ports: [1-2, x]\n",
        "enclaves: [{cid: 4}]\n",
        "limits: {idle: -1}\n",
        "forwards: {}\n",
        "shim: ~\n",
        "<<: 1\n",
        "- x\n",
        "log:\n",
        "  level: info\n",
    ]
)


@given(st.lists(fragments, max_size=8).map("".join) | st.text(max_size=60))
def test_any_text_is_a_document_or_errors_with_lines_of_the_file(text: str) -> None:
    content = text.encode("utf-8", "surrogatepass")
    try:
        document = parse(content, "f")
    except ConfigErrors as caught:
        errors = caught.errors
    else:
        assert document.lines[""] >= 1
        return
    assert errors
    assert [error.line for error in errors] == sorted(error.line for error in errors)
    for error in errors:
        assert 1 <= error.line <= len(text.splitlines()) + 1
        assert error.what
        assert error.mend
