"""Who may import what: the layers of docs/architecture.md, as tables that the tests walk."""

from dataclasses import dataclass

PACKAGES = ("vsockproxy", "enclave_side", "parent_side")


@dataclass(frozen=True, slots=True)
class Layer:
    """A module or package, the layers it may import, and what is special about it."""

    name: str
    imports: frozenset[str] = frozenset()
    lazily: frozenset[str] = frozenset()
    """Importable inside functions only, so that starting one command does not load the others."""
    is_pure: bool = False
    """No socket, loop, clock, thread or randomness: `now` and bytes are arguments."""


def _layers(*layers: Layer) -> dict[str, Layer]:
    return {layer.name: layer for layer in layers}


_VALUES = frozenset(
    {"vsockproxy", "vsockproxy.errors", "vsockproxy.addresses", "vsockproxy.nsm_locations"}
)
_PURE = frozenset(
    {
        "vsockproxy.config",
        "vsockproxy.policy",
        "vsockproxy.session",
        "vsockproxy.protocols",
        "vsockproxy.attestation",
        "vsockproxy.certificates",
        "vsockproxy.credentials",
    }
)
_SYSTEM = frozenset(
    {
        "vsockproxy.activity",
        "vsockproxy.listening",
        "vsockproxy.log",
        "vsockproxy.log_lines",
        "vsockproxy.metrics",
        "vsockproxy.nsm_device",
        "vsockproxy.passed_memory",
        "vsockproxy.processes",
        "vsockproxy.signals",
        "vsockproxy.tls_files",
        "vsockproxy.ingress_messages",
        "vsockproxy.trusted_roots",
        "vsockproxy.upstream_credentials",
        "vsockproxy.worker_messages",
        "vsockproxy.worker_reports",
    }
)
_LOOPS = frozenset({"vsockproxy.dataplane", "vsockproxy.control"})
_SERVICES = frozenset({"vsockproxy.services", "vsockproxy.control"})
_CONFIGURED = _VALUES | {"vsockproxy.config"}

LAYERS = _layers(
    Layer("vsockproxy", is_pure=True),
    Layer("vsockproxy.errors", is_pure=True),
    Layer("vsockproxy.addresses", frozenset({"vsockproxy.errors"}), is_pure=True),
    Layer("vsockproxy.nsm_locations", is_pure=True),
    Layer("vsockproxy.config", _VALUES, is_pure=True),
    Layer("vsockproxy.policy", _CONFIGURED, is_pure=True),
    Layer("vsockproxy.session", _CONFIGURED, is_pure=True),
    Layer("vsockproxy.protocols", _CONFIGURED, is_pure=True),
    Layer("vsockproxy.attestation", _CONFIGURED | {"vsockproxy.protocols"}, is_pure=True),
    Layer("vsockproxy.certificates", _VALUES, is_pure=True),
    Layer("vsockproxy.credentials", _VALUES | {"vsockproxy.protocols"}, is_pure=True),
    Layer("vsockproxy.listening", _VALUES),
    Layer("vsockproxy.trusted_roots", _CONFIGURED, lazily=frozenset({"vsockproxy.attestation"})),
    Layer("vsockproxy.upstream_credentials", _CONFIGURED),
    Layer("vsockproxy.metrics", frozenset({"vsockproxy"}), is_pure=True),
    Layer("vsockproxy.activity", frozenset({"vsockproxy", "vsockproxy.metrics"}), is_pure=True),
    Layer("vsockproxy.log_lines", is_pure=True),
    Layer("vsockproxy.log_schema", frozenset({"vsockproxy.log_lines"})),
    Layer("vsockproxy.log", _VALUES | {"vsockproxy.activity", "vsockproxy.log_lines"}),
    Layer("vsockproxy.processes", _VALUES),
    Layer("vsockproxy.signals", _VALUES),
    Layer("vsockproxy.nsm_device", _VALUES | {"vsockproxy.attestation"}),
    Layer("vsockproxy.software_nsm_keys", _VALUES | {"vsockproxy.attestation"}),
    Layer("vsockproxy.tls_files", _CONFIGURED),
    Layer(
        "vsockproxy.attested_tls",
        _VALUES
        | {
            "vsockproxy.attestation",
            "vsockproxy.certificates",
            "vsockproxy.protocols",
            "vsockproxy.tls_files",
        },
    ),
    Layer("vsockproxy.diagnosis", _VALUES | {"vsockproxy.nsm_device"}),
    Layer("vsockproxy.ingress_messages", is_pure=True),
    Layer("vsockproxy.certificate_messages", is_pure=True),
    Layer(
        "vsockproxy.worker_messages",
        _CONFIGURED
        | {
            "vsockproxy.log_lines",
            "vsockproxy.ingress_messages",
            "vsockproxy.certificate_messages",
        },
    ),
    Layer("vsockproxy.passed_memory", _CONFIGURED | {"vsockproxy.worker_messages"}),
    Layer(
        "vsockproxy.worker_reports",
        _VALUES | {"vsockproxy.metrics", "vsockproxy.passed_memory", "vsockproxy.worker_messages"},
    ),
    Layer("vsockproxy.dataplane", _VALUES | _PURE | _SYSTEM),
    Layer("vsockproxy.control", _VALUES | _PURE | _SYSTEM | {"vsockproxy.client.for_trio"}),
    Layer("vsockproxy.services", _VALUES | _PURE | _SYSTEM | _SERVICES),
    Layer(
        "vsockproxy.client",
        _VALUES
        | {
            "vsockproxy.session",
            "vsockproxy.attestation",
            "vsockproxy.credentials",
            "vsockproxy.protocols",
            "vsockproxy.nsm_device",
        },
    ),
    Layer("vsockproxy.client.for_asyncio", frozenset({"vsockproxy.client"})),
    Layer("vsockproxy.client.for_trio", frozenset({"vsockproxy.client"})),
    Layer(
        "enclave_side.services",
        _VALUES
        | _PURE
        | _SYSTEM
        | _SERVICES
        | {"vsockproxy.client", "vsockproxy.client.for_trio", "vsockproxy.software_nsm_keys"},
    ),
    Layer(
        "enclave_side",
        _VALUES | _PURE | _SYSTEM | _LOOPS | {"vsockproxy.client", "vsockproxy.software_nsm_keys"},
    ),
    Layer("parent_side", _VALUES | _PURE | _SYSTEM | _LOOPS),
    Layer("parent_side.services", _VALUES | _PURE | _SYSTEM | _SERVICES),
    Layer(
        "vsockproxy.cli",
        _CONFIGURED | _SYSTEM | {"vsockproxy.policy"},
        lazily=_PURE
        | _LOOPS
        | {
            "vsockproxy.attested_tls",
            "vsockproxy.client",
            "vsockproxy.diagnosis",
            "enclave_side",
            "parent_side",
            "parent_side.services",
        },
    ),
    Layer("vsockproxy.cli.eif", _VALUES | {"vsockproxy.attestation"}),
    Layer("vsockproxy.__main__", frozenset({"vsockproxy.cli"})),
)

HOMES = {
    "asyncio": {"vsockproxy.dataplane", "vsockproxy.client.for_asyncio"},
    "uvloop": {"vsockproxy.dataplane"},
    "trio": {
        "vsockproxy.control",
        "vsockproxy.client.for_trio",
        "enclave_side.services",
        "vsockproxy.services",
        "parent_side.services",
    },
    "h11": {"vsockproxy.protocols"},
    "cbor2": {
        "vsockproxy.session",
        "vsockproxy.attestation",
        "vsockproxy.passed_memory",
        "vsockproxy.worker_messages",
        "vsockproxy.worker_reports",
    },
    "acme": {"vsockproxy.certificates"},
    "josepy": {"vsockproxy.certificates"},
    "cryptography": {
        "vsockproxy.attestation",
        "vsockproxy.attested_tls",
        "vsockproxy.certificates",
        "vsockproxy.software_nsm_keys",
        "enclave_side.services",
    },
    "msgspec": {
        "parent_side.services",
        "vsockproxy.config",
        "vsockproxy.ingress_messages",
        "vsockproxy.certificate_messages",
        "vsockproxy.certificates",
        "vsockproxy.log_lines",
        "vsockproxy.passed_memory",
        "vsockproxy.worker_messages",
        "vsockproxy.worker_reports",
        "vsockproxy.control",
        "vsockproxy.credentials",
        "vsockproxy.cli",
    },
    "yaml": {"vsockproxy.config"},
    "idna": {"vsockproxy.addresses"},
    "pycares": {"parent_side"},
    "prometheus_client": {"parent_side.services"},
    "rich": {"vsockproxy.cli"},
    "dns": {"vsockproxy.protocols"},
    "pyroute2": {"enclave_side"},
    "click": {"vsockproxy.cli", "vsockproxy.cli.eif"},
}
"""The layers that may import each third-party package, and asyncio; without a home, none may."""

WITH_FILES = {
    "vsockproxy.config.load": "a configuration file is read by the layer that parses it",
    "vsockproxy.config.schema": "a module to run: it writes the schemas that configs/ holds",
}
"""Modules of pure layers that may touch files, and why."""

COMPUTED_IMPORTS = {
    "vsockproxy.cli.main": "a subcommand is imported by its name when it is used",
}
"""Modules that may compute what they import, and why."""

IMPURE_MODULES = {
    "os": "the operating system",
    "fcntl": "the operating system",
    "logging": "the operating system",
    "mmap": "the operating system",
    "resource": "the operating system",
    "shutil": "the operating system",
    "signal": "the operating system",
    "subprocess": "the operating system",
    "tempfile": "the operating system",
    "http.client": "a socket",
    "http.server": "a socket",
    "select": "a socket",
    "selectors": "a socket",
    "socket": "a socket",
    "socketserver": "a socket",
    "ssl": "a socket",
    "urllib.request": "a socket",
    "sched": "a clock",
    "time": "a clock",
    "_thread": "a thread",
    "concurrent": "a thread",
    "multiprocessing": "a thread",
    "queue": "a thread",
    "threading": "a thread",
    "random": "randomness",
    "secrets": "randomness",
}
"""What a pure layer must not import: modules, each with what it would bring in."""

IMPURE_NAMES = {
    "datetime.date.today": "a clock",
    "datetime.datetime.now": "a clock",
    "datetime.datetime.today": "a clock",
    "datetime.datetime.utcnow": "a clock",
    "uuid.uuid1": "randomness",
    "uuid.uuid4": "randomness",
    "io.open": "the operating system",
    "pathlib.Path": "the operating system",
    "builtins.open": "the operating system",
    "builtins.input": "the operating system",
    "builtins.print": "the operating system",
}
"""What a pure layer must not name, from modules that are otherwise harmless."""
