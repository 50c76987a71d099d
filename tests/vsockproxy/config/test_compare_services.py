"""Services that only one side names."""

from vsockproxy.config.compare_services import compare_services
from vsockproxy.config.load import Document, parse


def parent(ingress: str) -> Document:
    return parse(f"listen: vsock://any:5000\ningress: {ingress}\n".encode(), "parent.yaml")


def enclave(ingress: str, file: str = "enclave.yaml") -> Document:
    return parse(f"parent: vsock://3:5000\ningress: {ingress}\n".encode(), file)


LISTENER = "[{listen: 'tcp://0.0.0.0:443', service: web, routes: [{sni: a.example, service: app}]}]"


def found(parents: list[Document], enclaves: list[Document]) -> list[str]:
    return [str(warning) for warning in compare_services(parents, enclaves)]


def test_both_name_the_same() -> None:
    offers = "[{service: web, to: streams}, {service: app, to: streams}]"
    assert found([parent(LISTENER)], [enclave(offers)]) == []


def test_each_names_what_the_other_does_not() -> None:
    assert found([parent(LISTENER)], [enclave("[{service: mail, to: streams}]")]) == [
        "parent.yaml:2: ingress[0].service: no enclave offers the service web: "
        "add it to ingress of enclave.yaml, or remove it here",
        "parent.yaml:2: ingress[0].routes[0].service: no enclave offers the service app: "
        "add it to ingress of enclave.yaml, or remove it here",
        "enclave.yaml:2: ingress[0].service: no listener of the parent leads to the service mail: "
        "add one to ingress of parent.yaml, or remove it here",
    ]


def test_several_enclaves_share_them() -> None:
    enclaves = [
        enclave("[{service: web, to: streams}]", "a.yaml"),
        enclave("[{service: app, to: streams}]", "b.yaml"),
    ]
    assert found([parent(LISTENER)], enclaves) == []
    assert "a.yaml or b.yaml" in found([parent(LISTENER.replace("web", "x"))], enclaves)[0]


def test_one_side_alone_is_not_compared() -> None:
    assert found([parent(LISTENER)], []) == []
    assert found([], [enclave("[{service: web, to: streams}]")]) == []
