import pytest

from vsockproxy.addresses import TcpAddress, UnixAddress
from vsockproxy.config.load import ConfigErrors, parse
from vsockproxy.config.model import EnclaveConfig, EnclaveCredentials, ParentConfig

PARENT = "listen: vsock://any:5000\n"
ENCLAVE = "parent: vsock://3:5000\n"

WRONG = {
    "no enclave": (
        PARENT + "credentials: {}\n",
        "f:2: credentials.enclaves: missing: "
        "write a list, each item an integer within 0-4294967294",
    ),
    "an empty list of enclaves": (
        PARENT + "credentials: {enclaves: []}\n",
        "f:2: credentials.enclaves: the list is empty: "
        "write a list, each item an integer within 0-4294967294, or remove the key",
    ),
    "a source without an owner": (
        PARENT + "credentials: {enclaves: [16], socket: 'tcp://127.0.0.1:80'}\n",
        "f:2: credentials.socket: whoever may connect there has the instance's role: only a unix "
        "socket says who: write unix:///run/vsockproxy-credentials/credentials.sock, "
        "or imds in place of socket",
    ),
    "a source by its path": (
        PARENT + "credentials: {enclaves: [16], socket: /run/a.sock}\n",
        "f:2: credentials.socket: '/run/a.sock' is no unix socket: write unix:///run/a.sock",
    ),
    "a source that is nowhere": (
        PARENT + "credentials: {enclaves: [16], socket: credentials.sock}\n",
        "f:2: credentials.socket: 'credentials.sock' is no unix socket: write unix:///PATH",
    ),
    "a source that is a URL": (
        PARENT + "credentials: {enclaves: [16], socket: 'http://169.254.169.254'}\n",
        "f:2: credentials.socket: 'http://169.254.169.254' is no unix socket: write unix:///PATH",
    ),
    "a source by a path that none can have": (
        PARENT + f"credentials: {{enclaves: [16], socket: /{'a' * 120}}}\n",
        f"f:2: credentials.socket: '/{'a' * 79}…' is no unix socket: write unix:///PATH",
    ),
    "two sources": (
        PARENT + "credentials: {enclaves: [16], imds: 'http://127.0.0.1', socket: 'unix:///s'}\n",
        "f:2: credentials.socket: both imds and socket: "
        "remove socket, and the parent asks imds itself; or remove imds",
    ),
    "a metadata service elsewhere": (
        PARENT + "credentials: {enclaves: [16], imds: 'http://192.0.2.1'}\n",
        "f:2: credentials.imds: 192.0.2.1 is no address of this machine's metadata service: "
        "write http://169.254.169.254, or http://ADDRESS[:PORT] with a link-local or loopback "
        "address",
    ),
    "an endpoint that SDKs do not take": (
        ENCLAVE + "credentials: {listen: '10.0.0.1:80'}\n",
        "f:2: credentials.listen: 10.0.0.1 is no loopback address, and SDKs take no other: "
        "write 127.0.0.1:80",
    ),
    "a port that is taken": (
        ENCLAVE + "credentials: {listen: '127.0.0.1:3128'}\n",
        "f:2: credentials.listen: tcp://127.0.0.1:3128 is taken by shim.http_proxy: "
        "write another address or port",
    ),
    "no stream socket": (
        ENCLAVE + "credentials: {}\nshim: {streams: null}\n",
        "f:2: credentials: credentials come over the stream socket, which shim.streams: null "
        "turns off: remove shim.streams: null",
    ),
}


@pytest.mark.parametrize(("text", "line"), WRONG.values(), ids=WRONG)
def test_what_cannot_work_is_reported(text: str, line: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        parse(text.encode(), "f")
    assert str(caught.value) == line


def test_a_region_that_is_none_is_reported() -> None:
    with pytest.raises(ConfigErrors) as caught:
        parse((ENCLAVE + "credentials: {region: Ireland}\n").encode(), "f")
    assert "credentials.region" in str(caught.value)


def test_defaults() -> None:
    config = parse((PARENT + "credentials: {enclaves: [16, 17]}\n").encode(), "f").config
    assert isinstance(config, ParentConfig)
    assert config.credentials is not None
    assert config.credentials.socket == UnixAddress("/run/vsockproxy-credentials/credentials.sock")
    assert config.credentials.imds is None
    config = parse((ENCLAVE + "credentials: {}\n").encode(), "f").config
    assert isinstance(config, EnclaveConfig)
    assert config.credentials == EnclaveCredentials(TcpAddress("127.0.0.1", 3129))


@pytest.mark.parametrize("text", [PARENT, ENCLAVE])
def test_without_the_key_there_are_none(text: str) -> None:
    config = parse(text.encode(), "f").config
    assert isinstance(config, ParentConfig | EnclaveConfig)
    assert config.credentials is None
