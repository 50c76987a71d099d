"""The steps of the demo: what is typed, and what has to happen."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

SANDBOX = "vsockproxy sandbox --allow origin.test:443=$ORIGIN -- "

GREETING = "hello from origin.test, over TLSv1.3\n"


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


_REFUSED = (
    r"warning event=decision side=enclave host=forbidden\.test "
    r"reason=not_listed .*allowed=false text=.*"
)

_OURS = "lo|vsc0|vsc-rest"
_FALLBACK = "tunl0|gre0|gretap0|erspan0|ip_vti0|ip6_vti0|sit0|ip6tnl0|ip6gre0"
"""What some kernels put into every namespace, down (net.core.fb_tunnels_only_for_init_net in the
kernel's Documentation/admin-guide/sysctl/net.rst)."""

_INTERFACE = rf"\(\d+, '(?:{_OURS}|{_FALLBACK})'\)"

INTRODUCTION = """\
A web server for origin.test runs on this machine, at $ORIGIN, with a certificate of its own that
CURL_CA_BUNDLE and SSL_CERT_FILE name. Each sandbox is an enclave without Nitro: a namespace with
the enclave's half of vsockproxy in it, the parent's half outside, and a link between the two.
"""

STEPS = (
    Step(
        "Inside, all interfaces but lo lead to the enclave's half, and nowhere else:",
        SANDBOX + "python -c 'import socket; print(socket.if_nameindex())'",
        rf"\[{_INTERFACE}(?:, {_INTERFACE})*\]\n",
    ),
    Step(
        "curl reaches the host that is listed, through both halves. TLS ends at the web server.",
        SANDBOX + "curl -sS https://origin.test/",
        re.escape(GREETING),
    ),
    Step(
        "So does this Python program:",
        "cat tests/demo/fetch.py",
        r'"""[^"]*"""\n\nfrom urllib\.request import urlopen\n(?:.*\n)+',
    ),
    Step(
        "",
        SANDBOX + "python tests/demo/fetch.py",
        re.escape(GREETING),
    ),
    Step(
        "Another host is refused: it has no address here. The log says so, shown without the time.",
        SANDBOX + "curl -sS https://forbidden.test/",
        r"curl: \(6\) Could not resolve host: forbidden\.test\n",
        status=6,
        audit=(_REFUSED,),
    ),
)

CONCLUSION = (
    "Shown: without a network, curl and Python reached the one host that is listed, and no other."
)
