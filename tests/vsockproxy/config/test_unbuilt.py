import pytest

from vsockproxy.config.load import ConfigErrors, parse

PARENT = "listen: vsock://any:5000\n"
ENCLAVE = "parent: vsock://3:5000\n"

NOT_IN_THIS_VERSION = {
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
    "a number of workers": PARENT + "workers: 2\n",
    "a forward without TLS": ENCLAVE
    + "forwards: [{listen: 'unix:///a', to: 'a.b:1', tls: false}]\n",
}


@pytest.mark.parametrize("text", WITHOUT_THE_FEATURE.values(), ids=WITHOUT_THE_FEATURE)
def test_a_value_that_does_not_need_the_feature_is_accepted(text: str) -> None:
    assert parse(text.encode(), "f").config.__class__.__name__ in ("ParentConfig", "EnclaveConfig")


def test_a_broken_value_of_an_unbuilt_key_is_reported_as_such() -> None:
    text = ENCLAVE + "forwards: [{listen: nowhere, to: 'a.b:1', tls: true}]\n"
    with pytest.raises(ConfigErrors) as caught:
        parse(text.encode(), "f")
    assert [error.what for error in caught.value.errors] == [
        "'nowhere' is no endpoint",
        "not in this version",
    ]
