"""The steps of the demo: what is typed, and what has to happen."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

SANDBOX = "vsockproxy sandbox --allow origin.test:443=$ORIGIN -- "

GREETING = "hello from origin.test, over TLSv1.3\n"

CURL_RECEIVE_ERROR = 56
"""CURLE_RECV_ERROR, curl's exit code when a proxy refuses a tunnel."""


@dataclass(frozen=True, slots=True)
class Step:
    """One command.

    Args:
        text: says beforehand what it shows.
        line: what is typed into the shell.
        output: a pattern for all that the command itself writes.
        status: the exit status.
        audit: a pattern for each line in the log that tells of a decision, in their order.
    """

    text: str
    line: str
    output: str
    status: int = 0
    audit: tuple[str, ...] = ()

    def differences(self, output: str, status: int, audit: Sequence[str]) -> list[str]:
        """What happened otherwise than it should."""
        found = []
        if status != self.status:
            found.append(f"the exit status is {status}, not {self.status}")
        if not re.fullmatch(self.output, output):
            found.append(f"the output above is not like {self.output!r}")
        if len(audit) != len(self.audit) or not all(map(re.fullmatch, self.audit, audit)):
            found.append(f"the decisions in the log are not like {list(self.audit)!r}")
        return found


def _refused(port: int) -> str:
    return (
        rf"warning event=decision side=enclave host=forbidden\.test port={port} "
        r"reason=not_listed .*allowed=false text=.*"
    )


_INTERFACE = r"\(\d+, '(?:lo|tunl0|gre0|gretap0|erspan0|ip_vti0|ip6_vti0|sit0|ip6tnl0|ip6gre0)'\)"
"""lo, and what some kernels put into every namespace, down (net.core.fb_tunnels_only_for_init_net
in the kernel's Documentation/admin-guide/sysctl/net.rst)."""

INTRODUCTION = """\
A web server for origin.test runs on this machine, at $ORIGIN, with a certificate of its own that
CURL_CA_BUNDLE and SSL_CERT_FILE name. Each sandbox is an enclave without Nitro: a namespace with
the enclave's half of vsockproxy in it, the parent's half outside, and a link between the two.
"""

STEPS = (
    Step(
        "In there is no network. These are all the interfaces:",
        SANDBOX + "python -c 'import socket; print(socket.if_nameindex())'",
        rf"\[{_INTERFACE}(?:, {_INTERFACE})*\]\n",
    ),
    Step(
        "curl reaches the host that is listed; TLS runs from curl to the web server.",
        SANDBOX + "curl -sS https://origin.test/",
        re.escape(GREETING),
    ),
    Step(
        "This Python program does, too.",
        "cat tests/demo/fetch.py",
        r'"""[^"]*"""\n\nfrom urllib\.request import urlopen\n(?:.*\n)+',
    ),
    Step(
        "",
        SANDBOX + "python tests/demo/fetch.py",
        re.escape(GREETING),
    ),
    Step(
        "Another host is refused: what curl says, and the line in the log, without its time.",
        SANDBOX + "curl -sS https://forbidden.test/",
        r"curl: .*403.*\n",
        CURL_RECEIVE_ERROR,
        (_refused(443),),
    ),
    Step(
        "curl keeps what a proxy says about https:// to itself, but shows it for http://.",
        SANDBOX + "curl -sS http://forbidden.test:443/",
        r"not_listed: forbidden\.test:443: .*\n",
        audit=(_refused(443),),
    ),
)

CONCLUSION = (
    "Shown: without a network, curl and Python reached the one host that is listed, and no other."
)
