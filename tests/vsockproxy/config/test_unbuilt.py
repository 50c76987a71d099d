import pytest

from vsockproxy.config.load import ConfigErrors, parse

PARENT = "listen: vsock://any:5000\n"
ENCLAVE = "parent: vsock://3:5000\n"

NOT_IN_THIS_VERSION = {
    "ingress of the parent": (
        PARENT + "ingress: [{listen: 'tcp://0.0.0.0:443', service: web}]\n",
        "f:2: ingress: not in this version: remove it",
    ),
    "ingress of the enclave": (
        ENCLAVE + "ingress: [{service: web, to: 'tcp://127.0.0.1:8080'}]\n",
        "f:2: ingress: not in this version: remove it",
    ),
    "TLS of a forward": (
        ENCLAVE + "forwards: [{listen: 'unix:///a', to: 'a.b:1', tls: true}]\n",
        "f:2: forwards[0].tls: not in this version: remove it",
    ),
}


@pytest.mark.parametrize(("text", "line"), NOT_IN_THIS_VERSION.values(), ids=NOT_IN_THIS_VERSION)
def test_a_key_whose_feature_is_not_built_is_refused(text: str, line: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        parse(text.encode(), "f")
    assert str(caught.value) == line


WITHOUT_THE_FEATURE = {
    "no ingress of the parent": PARENT + "ingress: []\n",
    "a number of workers": PARENT + "workers: 2\n",
    "no ingress of the enclave": ENCLAVE + "ingress: []\n",
    "a forward without TLS": ENCLAVE
    + "forwards: [{listen: 'unix:///a', to: 'a.b:1', tls: false}]\n",
}


@pytest.mark.parametrize("text", WITHOUT_THE_FEATURE.values(), ids=WITHOUT_THE_FEATURE)
def test_a_value_that_does_not_need_the_feature_is_accepted(text: str) -> None:
    assert parse(text.encode(), "f").config.__class__.__name__ in ("ParentConfig", "EnclaveConfig")


def test_a_broken_value_of_an_unbuilt_key_is_reported_as_such() -> None:
    with pytest.raises(ConfigErrors) as caught:
        parse((PARENT + "ingress: [{listen: nowhere, service: web}]\n").encode(), "f")
    assert [error.what for error in caught.value.errors] == [
        "'nowhere' has no port",
        "not in this version",
    ]
