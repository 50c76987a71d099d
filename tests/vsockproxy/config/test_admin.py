import pytest

from vsockproxy.config.load import ConfigErrors, parse
from vsockproxy.config.model import ParentConfig

PARENT = "listen: vsock://any:5000\n"


@pytest.mark.parametrize(
    "endpoint",
    [
        *("unix:///run/vsockproxy/admin.sock", "unix:///run/a.sock?mode=0660"),
        *(
            "tcp://127.0.0.1:9110",
            "tcp://127.9.9.9:9110",
            "tcp://localhost:9110",
            "tcp://[::1]:9110",
        ),
    ],
)
def test_an_endpoint_of_this_machine_is_taken(endpoint: str) -> None:
    config = parse((PARENT + f"admin: {{listen: '{endpoint}'}}\n").encode(), "f").config
    assert isinstance(config, ParentConfig)
    assert config.admin is not None
    assert str(config.admin.listen) == endpoint


REFUSED = {
    "every address": (
        "tcp://0.0.0.0:9110",
        "f:2: admin.listen: it asks nobody who they are, and other machines could connect: write "
        "unix:///run/vsockproxy/admin.sock or tcp://127.0.0.1:9110",
    ),
    "every address of IPv6": (
        "tcp://[::]:9110",
        "f:2: admin.listen: it asks nobody who they are, and other machines could connect: write "
        "unix:///run/vsockproxy/admin.sock or tcp://127.0.0.1:9110",
    ),
    "an address of the network": (
        "tcp://10.0.0.1:80",
        "f:2: admin.listen: it asks nobody who they are, and other machines could connect: write "
        "unix:///run/vsockproxy/admin.sock or tcp://127.0.0.1:80",
    ),
    "where enclaves could connect": (
        "vsock://any:9110",
        "f:2: admin.listen: enclaves could connect to it: write "
        "unix:///run/vsockproxy/admin.sock or tcp://127.0.0.1:PORT",
    ),
}


@pytest.mark.parametrize(("endpoint", "line"), REFUSED.values(), ids=REFUSED)
def test_one_that_others_could_reach_is_refused(endpoint: str, line: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        parse((PARENT + f"admin: {{listen: '{endpoint}'}}\n").encode(), "f")
    assert str(caught.value) == line


def test_a_socket_that_is_listened_on_already_is_refused() -> None:
    text = "listen: unix:///run/a.sock\nadmin: {listen: 'unix:///run/a.sock'}\n"
    with pytest.raises(ConfigErrors, match="is taken by"):
        parse(text.encode(), "f")
