"""What the programs in a sandbox may reach, as both sides' files say it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.sandbox.ways import SHIMS, Way

LITERAL_V6 = "fd00::5"
NO_TLS: Mapping[str, Any] = {"require_tls": False}


@dataclass(frozen=True, slots=True)
class Destination:
    """What both sides allow, or only the enclave's.

    Args:
        host: a name, or a literal.
        port: the port that programs ask for.
        dial: what the parent dials; None where its list has no such rule.
        more: further keys of the enclave's rule.
    """

    host: str
    port: int
    dial: str | None
    more: Mapping[str, Any] = field(default_factory=dict)


FORWARDS: Mapping[int, str] = {
    15432: "db.test:5432",
    15433: "db-by-mistake.test:5432",
    12525: "mail.test:25",
    12526: "enclave-only-mail.test:25",
}
"""By their local port; none is a port that a rule names."""


def write_files(directory: Path, destinations: Sequence[Destination], way: Way) -> tuple[str, ...]:
    """Write the files of both sides; the options of `vsockproxy sandbox` that name them.

    Args:
        directory: where they go.
        destinations: what is allowed.
        way: the one way in that is on, beside the forwards.
    """
    parent = {
        "listen": "vsock://any:5000",
        "allowlist": [
            {"address": each.host, "port": each.port, "private": True, "dial": each.dial}
            for each in destinations
            if each.dial is not None
        ],
    }
    enclave = {
        "parent": "vsock://3:5000",
        "allowlist": [
            {"address": each.host, "port": each.port, **each.more} for each in destinations
        ],
        "shim": SHIMS[way],
        "forwards": [
            {"listen": f"tcp://127.0.0.1:{port}", "to": to} for port, to in FORWARDS.items()
        ],
    }
    options: list[str] = []
    for side, config in {"parent": parent, "enclave": enclave}.items():
        file = directory / f"{side}.yaml"
        file.write_text(json.dumps(config, indent=1))  # JSON is YAML
        options += [f"--config-{side}", str(file)]
    return tuple(options)
