import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsockproxy.addresses import normalise_host
from vsockproxy.config.changes import changes_since
from vsockproxy.config.document import Document
from vsockproxy.config.load import parse
from vsockproxy.config.model import AllowRule, DenyRule, EnclaveEntry, ParentConfig
from vsockproxy.config.patterns import AddressPattern, NameDepth, contains, parse_pattern
from vsockproxy.config.ports import parse_range
from vsockproxy.policy import Policy, may_connect


def parent(yaml: str, file: str) -> Document:
    return parse(f"listen: vsock://any:5000\n{yaml}\n".encode(), file, "parent")


def changes(old: str, new: str) -> list[str]:
    """What is printed for two files of a parent, which begin with the same line."""
    return [str(each) for each in changes_since(parent(old, "old.yaml"), parent(new, "new.yaml"))]


A = "{address: a.b, port: 443}"

PCR, OTHER_PCR = "ab" * 48, "cd" * 48
CASES = {
    "credentials for another enclave": (
        "credentials: {enclaves: [16, 17]}",
        "\ncredentials: {enclaves: [17, 18]}",
        [
            "new.yaml:3: credentials.enclaves: newly allowed: the credentials of the instance's "
            "role: for CID 18",
            "old.yaml:2: credentials.enclaves: newly forbidden: the credentials of the instance's "
            "role: for CID 16",
        ],
    ),
    "nothing": ("", "", []),
    "the same rule": (f"allowlist: [{A}]", f"allowlist: [{A}]", []),
    "the same ports, written otherwise": (
        "allowlist: [{address: a.b, ports: [1-10]}]",
        "allowlist: [{address: a.b, ports: [6-10]}, {address: a.b, ports: [1-5]}]",
        [],
    ),
    "the same network, in halves": (
        "allowlist: [{address: 10.0.0.0/8, port: 1}]",
        "allowlist: [{address: 10.0.0.0/9, port: 1}, {address: 10.128.0.0/9, port: 1}]",
        [],
    ),
    "a new rule": (
        "",
        f"allowlist: [{A}]",
        ["new.yaml:2: allowlist[0]: newly allowed: a.b port 443: for every enclave"],
    ),
    "a rule that is gone": (
        f"allowlist: [{A}]",
        "",
        ["old.yaml:2: allowlist[0]: newly forbidden: a.b port 443: for every enclave"],
    ),
    "some ports come, some go": (
        "allowlist: [{address: a.b, ports: [80, 443]}]",
        "allowlist: [{address: a.b, ports: [443, 8000-8010]}]",
        [
            "new.yaml:2: allowlist[0]: newly allowed: a.b port 8000-8010: for every enclave",
            "old.yaml:2: allowlist[0]: newly forbidden: a.b port 80: for every enclave",
        ],
    ),
    "a wildcard where a name was": (
        f"allowlist: [{A}]",
        "allowlist: [{address: '*.b', port: 443}]",
        ["new.yaml:2: allowlist[0]: newly allowed: *.b port 443 (but for a.b): for every enclave"],
    ),
    "a name where a wildcard was": (
        "allowlist: [{address: '*.b', port: 443}]",
        f"allowlist: [{A}]",
        [
            "old.yaml:2: allowlist[0]: newly forbidden: *.b port 443 (but for a.b): "
            "for every enclave"
        ],
    ),
    "a new denial": (
        "allowlist: [{address: '*.b', port: 443}]",
        "allowlist: [{address: '*.b', port: 443}]\ndenylist: [{address: a.b}]",
        ["new.yaml:3: denylist[0]: newly forbidden: a.b port 443: for every enclave"],
    ),
    "a denial of what was not allowed": ("", "denylist: [{address: a.b}]", []),
    "a denial that is gone": (
        f"allowlist: [{A}]\ndenylist: [{{address: '*.b'}}]",
        f"allowlist: [{A}]",
        ["new.yaml:2: allowlist[0]: newly allowed: a.b port 443: for every enclave"],
    ),
    "flags": (
        f"allowlist: [{A}]",
        "allowlist: [{address: a.b, port: 443, private: true, require_tls: true, dial: 'c.d:1'}]",
        [
            "new.yaml:2: allowlist[0]: newly allowed: private addresses of a.b port 443: "
            "for every enclave",
            "new.yaml:2: allowlist[0]: newly forbidden: without TLS: a.b port 443: "
            "for every enclave",
            "new.yaml:2: allowlist[0]: newly dialled as c.d:1: a.b port 443: for every enclave",
        ],
    ),
    "a denial of what a rule dials": (
        "allowlist: [{address: a.b, port: 443, dial: 'c.d:1'}]",
        "allowlist: [{address: a.b, port: 443, dial: 'c.d:1'}]\ndenylist: [{address: c.d}]",
        ["new.yaml:3: denylist[0]: newly forbidden: a.b port 443: for every enclave"],
    ),
    "an enclave with a list of its own": (
        f"allowlist: [{A}]",
        f"allowlist: [{A}]\nenclaves: [{{cid: 17, name: ledger, allowlist: []}}]",
        ["old.yaml:2: allowlist[0]: newly forbidden: a.b port 443: for CID 17 (ledger)"],
    ),
    "a rule for those without an entry": (
        "enclaves: [{cid: 17}]",
        f"allowlist: [{A}]\nenclaves: [{{cid: 17}}]",
        ["new.yaml:2: allowlist[0]: newly allowed: a.b port 443: for CIDs without an entry"],
    ),
    "a low CID": (
        "",
        "enclaves: [{cid: 3}]",
        ["new.yaml:2: enclaves: newly allowed: to connect: for CID 3"],
    ),
    "a low CID that is gone": (
        f"enclaves: [{{cid: 3, allowlist: [{A}]}}]",
        "",
        [
            "new.yaml:1: enclaves: newly forbidden: to connect: for CID 3",
            "old.yaml:2: enclaves[0].allowlist[0]: newly forbidden: a.b port 443: for CID 3",
        ],
    ),
    "measurements in place of any enclave": (
        f"allowlist: [{A}]",
        f"enclaves: [{{name: web, pcrs: {{0: {PCR}}}, allowlist: [{A}]}}]",
        [
            "new.yaml:2: enclaves: newly forbidden: to connect: for CIDs without an entry",
            "old.yaml:2: allowlist[0]: newly forbidden: a.b port 443: for CIDs without an entry",
        ],
    ),
    "measurements that a CID has to have": (
        f"enclaves: [{{cid: 17, allowlist: [{A}]}}]",
        f"enclaves: [{{cid: 17, pcrs: {{0: {PCR}, 8: {PCR}}}, allowlist: [{A}]}}]",
        [
            "new.yaml:2: enclaves: newly forbidden: to connect: for CID 17 without attestation",
            "old.yaml:2: enclaves[0].allowlist[0]: newly forbidden: a.b port 443: for CID 17 "
            "without attestation",
        ],
    ),
    "other measurements": (
        f"enclaves: [{{pcrs: {{0: {PCR}}}, allowlist: [{A}]}}]",
        f"enclaves: [{{pcrs: {{0: {OTHER_PCR}}}, allowlist: [{A}]}}]",
        [
            "new.yaml:2: enclaves: newly forbidden: to connect: for PCR0 abababababab…",
            "new.yaml:2: enclaves: newly allowed: to connect: for PCR0 cdcdcdcdcdcd…",
            "new.yaml:2: enclaves[0].allowlist[0]: newly allowed: a.b port 443: for PCR0 "
            "cdcdcdcdcdcd…",
            "old.yaml:2: enclaves[0].allowlist[0]: newly forbidden: a.b port 443: for PCR0 "
            "abababababab…",
        ],
    ),
    "a raw port": (
        "",
        "forwards: [{listen: 'vsock://any:8000', to: 'a.b:443'}]",
        [
            "new.yaml:2: forwards[0].listen: newly listened on: vsock://any:8000 for a.b:443: "
            "for whoever may connect"
        ],
    ),
}


@pytest.mark.parametrize(("old", "new", "lines"), CASES.values(), ids=CASES)
def test_changes(old: str, new: str, lines: list[str]) -> None:
    assert changes(old, new) == lines


def test_a_file_that_begins_to_report_only_allows_what_is_not_listed() -> None:
    lines = changes(f"allowlist: [{A}]\ndenylist: [{{address: c.d}}]", "mode: report")
    assert "new.yaml:2: mode: newly allowed: c.d port 1-65535: for every enclave" in lines
    assert lines[0] == (
        "new.yaml:2: mode: newly allowed: every destination that is not listed: "
        "for CIDs without an entry"
    )


def test_files_of_an_enclave_and_of_aws() -> None:
    old, new = (
        parse(f"parent: vsock://3:5000\n{text}".encode(), f"{name}.yaml", "enclave")
        for name, text in (("old", ""), ("new", f"allowlist: [{A}]"))
    )
    assert [str(each) for each in changes_since(old, new)] == [
        "new.yaml:2: allowlist[0]: newly allowed: a.b port 443: for every enclave"
    ]
    aws = parse(f"allowlist: [{A}]".encode(), "aws.yaml", "aws")
    assert changes_since(aws, aws) == ()


NAMES = ["b", "a.b", "x.a.b", "c.b", "10.0.0.1", "10.0.0.2", "10.128.0.1"]
PATTERNS = [*NAMES, "*.b", "**.b", "*.a.b", "**.a.b", "10.0.0.0/8", "10.0.0.0/9", "10.0.0.0/30"]
PORTS = [1, 2, 3, 65_535]
port_lists = st.lists(st.sampled_from(PORTS), min_size=1, max_size=3, unique=True)
allow_rules = st.builds(AllowRule, address=st.sampled_from(PATTERNS), ports=port_lists)
deny_rules = st.builds(DenyRule, address=st.sampled_from(PATTERNS), ports=st.none() | port_lists)
allowlists = st.lists(allow_rules, max_size=4)
denylists = st.lists(deny_rules, max_size=2)
entries = st.builds(
    EnclaveEntry, cid=st.sampled_from([3, 16]), allowlist=allowlists, denylist=denylists
)
configs = st.builds(
    ParentConfig,
    listen=st.just([]),
    allowlist=allowlists,
    denylist=denylists,
    enclaves=st.lists(entries, max_size=2, unique_by=lambda entry: entry.cid),
)

_LINE = re.compile(
    r"[a-z]+:\d+: \S+: newly (?P<what>allowed|forbidden): (?P<pattern>\S+) port (?P<ports>[^(:]+)"
    r"(?: \(but for (?P<exceptions>.+)\))?: for (?P<whom>.+)"
)


def says(line: str, what: str, host: str, port: int, cid: int, entries: set[int]) -> bool:
    """Whether a line says that of a destination, for a CID."""
    found = _LINE.fullmatch(line)
    if found is None or found["what"] != what:
        return False
    asked = parse_pattern(host)
    patterns = [parse_pattern(found["pattern"])]
    exceptions = [parse_pattern(text) for text in (found["exceptions"] or "").split(", ") if text]
    spans = [parse_range(text) or (int(text), int(text)) for text in found["ports"].split(", ")]
    whom = found["whom"]
    concerns = whom == "every enclave" or (
        f"CID {cid}" in whom.split(", ") if cid in entries else "CIDs without an entry" in whom
    )
    return (
        concerns
        and any(low <= port <= high for low, high in spans)
        and contains(patterns[0], asked)
        and not any(contains(each, asked) for each in exceptions)
    )


@given(old=configs, new=configs)
def test_lines_say_what_policy_decides_and_nothing_else(
    old: ParentConfig, new: ParentConfig
) -> None:
    documents = (Document(old, "old", {}), Document(new, "new", {}))
    lines = [str(each) for each in changes_since(*documents)]
    entries = {
        entry.cid for config in (old, new) for entry in config.enclaves if entry.cid is not None
    }
    for cid in (3, 16, 17):
        if cid == 3 and cid not in entries:
            continue  # it may not connect, and there is nothing to say of it
        before, after = (
            [
                may_connect(each, cid) and policy.decide(normalise_host(host), port).allowed
                for host in NAMES
                for port in PORTS
            ]
            for each, policy in ((each, Policy.compile(each, cid=cid)) for each in documents)
        )
        pairs = [(host, port) for host in NAMES for port in PORTS]
        for (host, port), was, is_now in zip(pairs, before, after, strict=True):
            for what, wanted in (
                ("allowed", is_now and not was),
                ("forbidden", was and not is_now),
            ):
                said = any(says(line, what, host, port, cid, entries) for line in lines)
                assert said == wanted, (what, host, port, cid, lines)


def test_the_patterns_of_the_property_are_of_every_kind() -> None:
    kinds = {
        "network" if isinstance(each, AddressPattern) else each.depth
        for each in map(parse_pattern, PATTERNS)
    }
    assert kinds == {"network", *NameDepth}
