"""Makes the command's network namespace, as a `NetworkPlan` says, in a short-lived process.

    python -m enclave_side.network_setup CHANNEL-DESCRIPTOR

It reads the plan from the channel, a stream socket, up to its end, and answers with the namespace's
descriptor beside one byte, or with a line that says what stood against it. A process of its own
because a namespace belongs to the thread that enters it, and because nobody else needs pyroute2.
"""

import array
import errno
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from enclave_side.namespaces import Namespace, NamespaceError, enter_namespace, unshare
from enclave_side.network_plan import (
    COMMAND_IPV6,
    GATEWAY_IPV6,
    NEIGHBOUR_IPV6,
    NetworkPlan,
)

__all__ = ("main",)

MTU_BYTES: Final = 65_535
"""Nothing here is a wire: the largest packet is the cheapest."""

_NO_ADDRESS_BY_ITSELF: Final = 1  # IN6_ADDR_GEN_MODE_NONE (include/uapi/linux/if_link.h)
_NO_DUPLICATE_CHECK: Final = 0x02  # IFA_F_NODAD (include/uapi/linux/if_addr.h)
_ON_LINK: Final = 4  # RTNH_F_ONLINK (include/uapi/linux/rtnetlink.h)
_UP: Final = 0x1  # IFF_UP (include/uapi/linux/if.h)
_LOOPBACK: Final = 0x8  # IFF_LOOPBACK, the same file
_LOCAL_TABLE: Final = 255  # RT_TABLE_LOCAL
_THIS_NETWORK: Final = "/proc/self/ns/net"


def make_namespace(plan: NetworkPlan) -> int:
    """Make the namespace and join it to this process's own; its descriptor.

    Raises:
        NamespaceError: the kernel refused a step, or this process's own namespace is a network.
    """
    with closing(_Network()) as network:
        _refuse_a_network(network)
    ours = os.open(_THIS_NETWORK, os.O_RDONLY)
    try:
        unshare(Namespace.NETWORK)
        theirs = os.open(_THIS_NETWORK, os.O_RDONLY)
        has_ipv6 = socket.has_ipv6 and Path("/proc/sys/net/ipv6").exists()
        _write_settings(_SETTINGS_OF_THE_COMMAND)
        with closing(_Network()) as network:
            _make_pairs(network, plan, ours)
        enter_namespace(ours, Namespace.NETWORK)
        _write_settings(_SETTINGS_OF_OURS)
        with closing(_Network()) as network:
            _set_up_ours(network, plan, has_ipv6=has_ipv6)
        enter_namespace(theirs, Namespace.NETWORK)
        with closing(_Network()) as network:
            _set_up_theirs(network, plan, has_ipv6=has_ipv6)
    finally:
        os.close(ours)
    return theirs


_SETTINGS_OF_THE_COMMAND: Final = {
    # The command serves the ports below 1024 too, without a capability.
    "ipv4/ip_unprivileged_port_start": "0",
    "ipv4/conf/all/rp_filter": "0",
    "ipv4/conf/default/rp_filter": "0",
}

_SETTINGS_OF_OURS: Final = {
    # Answers leave by the device that the route names, which may be another than they came by.
    "ipv4/conf/all/rp_filter": "0",
    "ipv4/conf/default/rp_filter": "0",
    # Every address is local here, and none of them is really there.
    "ipv4/icmp_echo_ignore_all": "1",
    "ipv6/icmp/echo_ignore_all": "1",
}


def _write_settings(settings: dict[str, str]) -> None:
    for name, value in settings.items():
        path = Path("/proc/sys/net", name)
        if path.exists():  # older kernels have fewer, and some have no IPv6
            try:
                path.write_text(value)
            except OSError as error:
                raise NamespaceError(f"writing {path}", error.errno or 0) from error


class _Network:
    """The interfaces and routes of the namespace in which it is made."""

    def __init__(self) -> None:
        self._netlink: Any = self._run("opening a netlink socket", IPRoute)

    def close(self) -> None:
        self._netlink.close()

    def index(self, name: str) -> int:
        """The number of an interface."""
        return socket.if_nametoindex(name)

    def interfaces_up(self) -> Iterator[str]:
        """The names of those that are up, without lo."""
        for link in self._run("listing the interfaces", self._netlink.get_links):
            if link["flags"] & _UP and not link["flags"] & _LOOPBACK:
                yield link.get_attr("IFLA_IFNAME")

    def link(self, verb: str, step: str, **fields: object) -> None:
        self._run(step, lambda: self._netlink.link(verb, **fields))

    def address(self, step: str, **fields: object) -> None:
        self._run(step, lambda: self._netlink.addr("add", **fields))

    def route(self, step: str, **fields: object) -> None:
        self._run(step, lambda: self._netlink.route("add", **fields))

    @staticmethod
    def _run(step: str, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except NetlinkError as error:
            raise NamespaceError(step, error.code) from error
        except OSError as error:
            raise NamespaceError(step, error.errno or 0) from error


def _refuse_a_network(network: _Network) -> None:
    """An enclave has lo alone; a machine with more would be cut off from all of it."""
    name = next(network.interfaces_up(), None)
    if name is not None:
        raise NamespaceError("making every address local", errno.EBUSY).because(
            f"the interface {name} is up, and this machine would lose its network; that is for"
            " an enclave, `vsockproxy sandbox`, or a container with --network none"
        )


def _make_pairs(network: _Network, plan: NetworkPlan, ours: int) -> None:
    for pair in plan.pairs:
        try:
            network.link(
                "add",
                f"making the devices {pair.theirs} and {pair.ours}",
                ifname=pair.theirs,
                kind="veth",
                peer={"ifname": pair.ours, "net_ns_fd": ours},
            )
        except NamespaceError as error:
            if error.number == errno.EOPNOTSUPP:
                raise error.because("this kernel has no veth devices") from None
            raise


def _set_up_ours(network: _Network, plan: NetworkPlan, *, has_ipv6: bool) -> None:
    loopback = network.index("lo")
    network.link("set", "bringing up lo", index=loopback, state="up")
    network.route(
        "making all of IPv4 local",
        dst="0.0.0.0/0",
        type="local",
        scope="host",
        oif=loopback,
        table=_LOCAL_TABLE,
    )
    if has_ipv6:
        network.route(
            "making all of IPv6 local",
            dst="::/0",
            type="local",
            oif=loopback,
            table=_LOCAL_TABLE,
            family=socket.AF_INET6,
        )
    for number, pair in enumerate(plan.pairs):
        index = network.index(pair.ours)
        _bring_up(network, pair.ours, index, has_ipv6=has_ipv6)
        # Within the local table, since that is asked first: there a longer prefix wins. The
        # priority only tells the routes of the pairs apart; a bound socket takes its own.
        network.route(
            f"routing {plan.command} to {pair.ours}",
            dst=f"{plan.command}/32",
            oif=index,
            scope="link",
            table=_LOCAL_TABLE,
            priority=number + 1,
        )
        if has_ipv6:
            _add_ipv6(network, pair.ours, index, f"{GATEWAY_IPV6}/64")
            network.route(
                f"routing {COMMAND_IPV6} to {pair.ours}",
                dst=f"{COMMAND_IPV6}/128",
                gateway=str(NEIGHBOUR_IPV6),
                oif=index,
                table=_LOCAL_TABLE,
                priority=number + 1,
                family=socket.AF_INET6,
            )


def _set_up_theirs(network: _Network, plan: NetworkPlan, *, has_ipv6: bool) -> None:
    loopback = network.index("lo")
    network.link("set", "bringing up lo", index=loopback, state="up")
    network.address(
        f"adding {plan.command}", index=loopback, address=str(plan.command), prefixlen=32
    )
    if has_ipv6:
        _add_ipv6(network, "lo", loopback, f"{COMMAND_IPV6}/128")
    for pair in plan.pairs:
        index = network.index(pair.theirs)
        _bring_up(network, pair.theirs, index, has_ipv6=has_ipv6)
        if has_ipv6:
            _add_ipv6(network, pair.theirs, index, f"{NEIGHBOUR_IPV6}/64")
        for destination in pair.networks:
            step = f"routing {destination} to {pair.theirs}"
            if destination.version == 4:
                network.route(
                    step,
                    dst=str(destination),
                    gateway=str(plan.server),
                    oif=index,
                    flags=_ON_LINK,
                    prefsrc=str(plan.command),
                )
            elif has_ipv6:
                network.route(
                    step,
                    dst=str(destination),
                    gateway=str(GATEWAY_IPV6),
                    oif=index,
                    prefsrc=str(COMMAND_IPV6),
                    family=socket.AF_INET6,
                )
    index = network.index(plan.pairs[-1].theirs)
    network.route(
        f"routing {plan.server}",
        dst=f"{plan.server}/32",
        oif=index,
        scope="link",
        prefsrc=str(plan.command),
    )


def _bring_up(network: _Network, name: str, index: int, *, has_ipv6: bool) -> None:
    if has_ipv6:
        # Otherwise each has a second address, which is not to be used before it was checked for
        # a second owner, for a second or two.
        network.link(
            "set",
            f"configuring {name}",
            index=index,
            IFLA_AF_SPEC={
                "attrs": [
                    ("AF_INET6", {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", _NO_ADDRESS_BY_ITSELF)]})
                ]
            },
        )
    network.link("set", f"bringing up {name}", index=index, mtu=MTU_BYTES, state="up")


def _add_ipv6(network: _Network, name: str, index: int, interface: str) -> None:
    address, _, prefix_length = interface.partition("/")
    network.address(
        f"adding {address} to {name}",
        index=index,
        address=address,
        prefixlen=int(prefix_length),
        family=socket.AF_INET6,
        flags=_NO_DUPLICATE_CHECK,
    )


def main() -> None:
    """Serve the process that started this one, once."""
    with socket.socket(fileno=int(sys.argv[1])) as channel:
        plan = NetworkPlan.from_json(b"".join(iter(lambda: channel.recv(65_536), b"")).decode())
        try:
            namespace = make_namespace(plan)
        except NamespaceError as error:
            channel.sendall(str(error).encode())
            return
        rights = array.array("i", [namespace]).tobytes()
        channel.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])


if __name__ == "__main__":
    main()
