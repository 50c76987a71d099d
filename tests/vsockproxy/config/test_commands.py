from itertools import pairwise

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsockproxy.config.command_order import find_cycle
from vsockproxy.config.document import Document
from vsockproxy.config.load import ConfigErrors, parse
from vsockproxy.config.model import EnclaveConfig

ENCLAVE = "parent: vsock://3:5000\n"

FAULTS = {
    "a name that is taken": (
        "commands: [{name: a, run: [x]}, {name: a, run: [y]}]",
        "f:2: commands[1].name: the name a is taken by commands[0]: write another name",
    ),
    "no program": (
        "commands: [{name: a, run: []}]",
        "f:2: commands[0].run: there is no program to run: "
        "write the program and its arguments, as a list",
    ),
    "an empty program": (
        "commands: [{name: a, run: ['']}]",
        "f:2: commands[0].run: there is no program to run: "
        "write the program and its arguments, as a list",
    ),
    "a command that is not there to wait for": (
        "commands: [{name: a, run: [x], after: [b]}]",
        "f:2: commands[0].after[0]: there is no command b: write one of a",
    ),
    "one that waits for itself": (
        "commands: [{name: a, run: [x], after: [a]}]",
        "f:2: commands[0].after: it waits for itself: a after a: remove one of them from after",
    ),
    "a ring": (
        "commands: [{name: c, run: [x], after: [a]}, {name: a, run: [x], after: [b]}, "
        "{name: b, run: [x], after: [a]}]",
        "f:2: commands[1].after: it waits for itself: a after b after a: "
        "remove one of them from after",
    ),
    "finished, and always started again": (
        "commands: [{name: a, run: [x], ready: finished, restart: always}]",
        "f:2: commands[0].ready: a command that is always started again never finishes: "
        "write restart: on-failure, or another ready",
    ),
    "a path that is not absolute": (
        "commands: [{name: a, run: [x], working_directory: srv}]",
        "f:2: commands[0].working_directory: 'srv' does not fit: write an absolute path",
    ),
    "a variable's name with =": (
        "commands: [{name: a, run: [x], environment: {A=B: c}}]",
        "f:2: commands[0].environment.A=B: 'A=B' does not fit: "
        "write the name of an environment variable",
    ),
    "a setting that leads elsewhere": (
        "machine: {sysctls: {net/../kernel.x: 1}}",
        "f:2: machine.sysctls.net/../kernel.x: 'net/../kernel.x' does not fit: "
        "write a setting of the kernel, as net.core.somaxconn",
    ),
    "a clock without a source": (
        "machine: {clock: {max_step: 3}}",
        "f:2: machine.clock.source: missing: write parent or ptp",
    ),
}


@pytest.mark.parametrize(("text", "line"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_told(text: str, line: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        parse(f"{ENCLAVE}{text}\n".encode(), "f")
    assert str(caught.value) == line


def test_a_whole_machine_loads() -> None:
    text = """
commands:
  - {name: db, run: [postgres, -D, /data], ready: 5432, restart: always, user: 70,
     capabilities: [CHOWN]}
  - {name: web, run: [web], after: [db], essential: true, environment: {A: b}, stop_grace: 3}
machine:
  hostname: e-1
  entropy: {source: nsm-hwrng, seed: true}
  clock: {source: ptp}
  heartbeat: on
  sysctls: {net.core.somaxconn: 8192, net.ipv4.ip_local_port_range: 2000 60000}
"""
    document = parse((ENCLAVE + text).encode(), "f")
    config = document.config
    assert isinstance(config, EnclaveConfig)
    assert Document.from_builtins(cbor2.loads(cbor2.dumps(document.to_builtins()))) == document
    db, web = config.commands
    assert (db.ready, db.user, db.vsock, web.after) == (5432, 70, None, ["db"])
    assert config.machine.clock is not None
    assert (config.machine.clock.max_step, config.machine.heartbeat) == (60.0, "on")
    assert config.machine.sysctls["net.core.somaxconn"] == 8192


NAMES = list("abcdef")


@given(st.dictionaries(st.sampled_from(NAMES), st.lists(st.sampled_from(NAMES), max_size=3)))
def test_either_there_is_a_ring_or_an_order(waits_for: dict[str, list[str]]) -> None:
    known = {
        name: [each for each in after if each in waits_for] for name, after in waits_for.items()
    }
    cycle = find_cycle(waits_for)
    if cycle:
        assert cycle[0] == cycle[-1]
        assert all(after in known[name] for name, after in pairwise(cycle))
        return
    remaining = known
    while remaining:
        free = [name for name, after in remaining.items() if remaining.keys().isdisjoint(after)]
        assert free, "somebody can always be next"
        remaining = {name: after for name, after in remaining.items() if name not in free}


def test_a_ring_is_told_from_one_of_its_members_to_itself() -> None:
    waits_for = {"a": ["b"], "b": ["d", "c"], "c": ["b"], "d": []}
    assert find_cycle(waits_for) in (["b", "c", "b"], ["c", "b", "c"])
    assert find_cycle({"z": [], "a": ["m"], "m": [], "b": ["nobody"]}) == []
