"""Valid configurations, for what holds of each of them."""

from typing import Any

import msgspec
from hypothesis import strategies as st

from vsockproxy.addresses import (
    Destination,
    TcpAddress,
    UnixAddress,
    VsockAddress,
    normalise_host,
)
from vsockproxy.config.capabilities import CAPABILITIES
from vsockproxy.config.document import Document
from vsockproxy.config.model import (
    BUDGET_RESERVE_BYTES,
    FIRST_WINDOW_BYTES,
    AllowRule,
    AwsAllowlist,
    AwsRule,
    Command,
    DenyRule,
    EnclaveConfig,
    EnclaveCredentials,
    EnclaveEntry,
    EnclaveForward,
    EnclaveLimits,
    EnclaveLog,
    Limits,
    ParentAttestation,
    ParentConfig,
    ParentCredentials,
    ParentForward,
    ParentLog,
    Rate,
    Resolver,
    Shim,
)

ports = st.integers(1, 65_535)
labels = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=8)
names = st.lists(labels, min_size=1, max_size=3).map(".".join)
literals = st.sampled_from(["10.0.0.1", "192.0.2.1", "2001:db8::1", "::ffff:10.0.0.1", "::"])
hosts = names | literals
destinations = st.builds(Destination, hosts.map(normalise_host), ports)
cids = st.integers(0, 0xFFFF_FFFE)
modes = st.none() | st.integers(0, 0o777)
tcp_addresses = st.builds(TcpAddress, literals | st.just("localhost"), ports)
patterns = hosts | names.map("*.{}".format) | names.map("**.{}".format) | st.just("10.0.0.0/8")
port_items: st.SearchStrategy[int | str] = ports | st.tuples(ports, ports).map(
    lambda pair: f"{min(pair)}-{max(pair)}"
)
port_lists = st.lists(port_items, min_size=1, max_size=3)
seconds = st.sampled_from([0.001, 0.5, 1.0, 86_400.0])
policies = st.sampled_from(["enforce", "report"])


def sections(section_type: type[Any], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Sections with some of `fields`, the required ones always."""
    required = {item.name for item in msgspec.structs.fields(section_type) if item.required}
    return st.fixed_dictionaries(
        {name: values for name, values in fields.items() if name in required},
        optional={name: values for name, values in fields.items() if name not in required},
    ).map(lambda chosen: section_type(**chosen))


def lists(section: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    """A few of them."""
    return st.lists(section, max_size=2)


def listeners(where: str, cid: st.SearchStrategy[int | None]) -> st.SearchStrategy[UnixAddress]:
    """Unix sockets in a folder of their own, so that no two sections collide."""
    return st.builds(UnixAddress, labels.map(f"/{where}/{{}}".format), cid, modes)


def unique(
    section_type: type[Any], key: str, **fields: st.SearchStrategy[Any]
) -> st.SearchStrategy[list[Any]]:
    """A few sections that differ in `key`."""

    def identity(section: Any) -> object:
        value = getattr(section, key)
        return value.path if isinstance(value, UnixAddress) else value

    return st.lists(sections(section_type, **fields), max_size=2, unique_by=identity)


per_second = st.floats(0.01, 1000)
rates = sections(
    Rate,
    streams=per_second,
    lookups=st.none() | per_second,
    burst=st.none() | st.integers(1, 1000),
)
allow_rules = st.builds(
    lambda rule, chosen: msgspec.structs.replace(rule, **chosen),
    sections(
        AllowRule,
        address=patterns,
        private=st.booleans(),
        dial=destinations,
        require_tls=st.none() | st.booleans(),
        names=st.booleans(),
        connections=st.none() | st.integers(1, 1000),
        rate=st.none() | per_second,
    ),
    st.fixed_dictionaries({"port": ports}) | st.fixed_dictionaries({"ports": port_lists}),
)
enclave_rules = allow_rules.map(
    # Names listens on every port of its rules, and there is an end to that.
    lambda rule: rule if rule.ports is None else msgspec.structs.replace(rule, names=False)
)
deny_rules = sections(DenyRule, address=patterns, ports=port_lists)
limits = st.builds(
    lambda limits, streams, more_bytes: msgspec.structs.replace(
        limits,
        streams=streams,
        receive_budget=streams * FIRST_WINDOW_BYTES + BUDGET_RESERVE_BYTES + more_bytes,
    ),
    sections(
        Limits,
        dedicated=st.integers(0, 4096),
        link_wait=seconds,
        connect=seconds,
        handshake=seconds,
        half_closed=seconds,
        idle=seconds,
        rate=st.none() | rates,
    ),
    st.integers(1, 65_536),
    st.integers(0, 2**30),
)
formats = st.sampled_from(["auto", "text", "json"])
levels = st.sampled_from(["debug", "info", "warning", "error"])
entries = sections(
    EnclaveEntry,
    cid=cids,
    name=st.none() | labels,
    allowlist=lists(allow_rules),
    denylist=lists(deny_rules),
    limits=sections(EnclaveLimits, streams=st.none() | st.just(1), rate=st.none() | rates),
    pcrs=st.dictionaries(
        st.integers(0, 31).map(str),
        st.binary(min_size=48, max_size=48).filter(any).map(bytes.hex),
        max_size=2,
    ),
).filter(lambda entry: entry.cid is not None or entry.pcrs)
"""With different CIDs, or without, no two of them are for the same enclaves only."""
parent_configs = sections(
    ParentConfig,
    listen=listeners("listen", st.none() | cids).map(lambda endpoint: [endpoint]),
    allowlist=lists(allow_rules),
    denylist=lists(deny_rules),
    mode=policies,
    mixed=st.sampled_from(["refuse", "drop"]),
    require_tls=st.booleans(),
    enclaves=st.lists(
        entries,
        max_size=2,
        unique_by=lambda entry: entry.cid,
    ),
    attestation=sections(
        ParentAttestation,
        root=st.none() | st.just("/etc/vsockproxy/root.pem"),
        allow_debug=st.booleans(),
        instance=st.none() | st.just("i-0123456789abcdef0"),
        max_age=st.sampled_from([1.0, 300.0]),
        timeout=st.sampled_from([1.0, 30.0]),
    ),
    forwards=unique(
        ParentForward, "listen", listen=listeners("forwards", st.none() | cids), to=destinations
    ),
    resolver=sections(
        Resolver,
        servers=st.none() | st.lists(literals, min_size=1, max_size=2),
        hosts=st.dictionaries(names, st.lists(literals, min_size=1, max_size=2), max_size=2),
        timeout=st.sampled_from([0.1, 60.0]),
    ),
    credentials=st.none()
    | sections(
        ParentCredentials,
        enclaves=st.lists(cids, min_size=1, max_size=2),
        socket=listeners("credentials", st.none()),
    ),
    workers=st.integers(1, 256),
    limits=limits,
    log=sections(ParentLog, format=formats, level=levels, enclave_lines=st.integers(0, 1_000_000)),
)
enclave_configs = sections(
    EnclaveConfig,
    parent=listeners("parent", st.none()) | st.builds(VsockAddress, cids, ports),
    allowlist=lists(enclave_rules),
    denylist=lists(deny_rules),
    mode=policies,
    require_tls=st.booleans(),
    links=st.integers(1, 16),
    workers=st.integers(1, 256),
    shim=sections(
        Shim,
        names=st.booleans(),
        http_proxy=st.none() | tcp_addresses,
        streams=st.none() | st.just("/streams/socket"),
        environment=st.none() | st.booleans(),
    ),
    forwards=unique(
        EnclaveForward,
        "listen",
        listen=listeners("forwards", st.none()),
        to=destinations,
        carrier=st.sampled_from(["shared", "dedicated"]),
    ),
    credentials=st.none() | sections(EnclaveCredentials, imds=st.booleans()),
    command=sections(
        Command,
        user=st.none() | labels | st.integers(0, 2**32 - 2),
        capabilities=st.lists(st.sampled_from(CAPABILITIES), max_size=3),
        vsock=st.sampled_from(["deny", "allow"]),
    ),
    limits=limits,
    log=sections(
        EnclaveLog,
        format=formats,
        level=levels,
        to_parent=st.none() | st.booleans(),
        buffer=st.integers(2**16, 2**30),
    ),
).map(
    # They come over the stream socket.
    lambda config: (
        config
        if config.shim.streams is not None
        else msgspec.structs.replace(config, credentials=None)
    )
)
aws_allowlists = sections(
    AwsAllowlist, allowlist=lists(sections(AwsRule, address=hosts, port=ports))
)
documents = st.builds(
    Document,
    parent_configs | enclave_configs | aws_allowlists,
    st.sampled_from(["parent.yaml", "/etc/vsockproxy/enclave.yaml", "--allow"]),
    st.dictionaries(st.sampled_from(["", "allowlist", "allowlist[0].port"]), st.integers(1, 9999)),
)
