"""What `check` says about ingress."""

import pytest

from vsockproxy.config.load import ConfigErrors, parse

PARENT = "listen: vsock://any:5000\nenclaves: [{cid: 17, name: ledger}]\n"
ENCLAVE = "parent: vsock://3:5000\n"
LISTEN = "listen: 'tcp://0.0.0.0:443'"


def report(text: str) -> list[str]:
    with pytest.raises(ConfigErrors) as caught:
        parse(text.encode(), "f")
    return str(caught.value).splitlines()


PARENT_FAULTS = {
    "leads nowhere": (
        f"[{{{LISTEN}}}]",
        "ingress[0]: neither service nor routes: its connections would lead nowhere: write service",
    ),
    "a CID and a name": (
        f"[{{{LISTEN}, service: web, cid: 17, name: ledger}}]",
        "ingress[0].name: both cid and name: write one of them",
    ),
    "a name that no entry has": (
        f"[{{{LISTEN}, service: web, name: legder}}]",
        "ingress[0].name: no entry of enclaves has the name legder: "
        "write cid, or add a name to an entry",
    ),
    "a name that no entry has, in a route": (
        f"[{{{LISTEN}, routes: [{{sni: a.b, service: web, name: x}}]}}]",
        "ingress[0].routes[0].name: no entry of enclaves has the name x: "
        "write cid, or add a name to an entry",
    ),
    "a CID without a service": (
        f"[{{{LISTEN}, cid: 17, routes: [{{sni: a.b, service: web}}]}}]",
        "ingress[0].cid: cid belongs to service, which is missing: "
        "write it in the routes, or add service",
    ),
    "a route twice": (
        f"[{{{LISTEN}, routes: [{{sni: a.b, service: a}}, {{sni: a.b, service: b}}]}}]",
        "ingress[0].routes[1].sni: a.b has a route already, ingress[0].routes[0]: "
        "write one route for each name",
    ),
    "a route for an address": (
        f"[{{{LISTEN}, routes: [{{sni: 192.0.2.1, service: a}}]}}]",
        "ingress[0].routes[0].sni: 192.0.2.1 is no name: TLS clients send none but names: "
        "write a name, or service at the listener",
    ),
    "a name of ours": (
        f"[{{{LISTEN}, service: vsockproxy.log}}]",
        "ingress[0].service: names that begin with vsockproxy. are vsockproxy's own: "
        "write another name",
    ),
    "the same port twice": (
        f"[{{{LISTEN}, service: a}}, {{{LISTEN}, service: b}}]",
        "ingress[1].listen: tcp://0.0.0.0:443 is taken by ingress[0].listen: "
        "write another address or port",
    ),
}


@pytest.mark.parametrize("case", PARENT_FAULTS)
def test_ingress_of_a_parent(case: str) -> None:
    yaml, line = PARENT_FAULTS[case]
    assert report(f"{PARENT}ingress: {yaml}\n") == [f"f:3: {line}"]


MEND = "write tcp://127.0.0.1:PORT or unix:///PATH"

ENCLAVE_FAULTS = {
    "on vsock": (
        "[{service: web, to: 'vsock://3:80'}]",
        f"ingress[0].to: a service of the command does not listen on vsock: {MEND}",
    ),
    "on another machine": (
        "[{service: web, to: 'tcp://10.0.0.1:80'}]",
        f"ingress[0].to: 10.0.0.1 is not the command's own machine: {MEND}",
    ),
    "on every address": (
        "[{service: web, to: 'tcp://0.0.0.0:80'}]",
        f"ingress[0].to: 0.0.0.0 is not the command's own machine: {MEND}",
    ),
    "on no port": (
        "[{service: web, to: 'tcp://127.0.0.1:0'}]",
        f"ingress[0].to: nobody listens on port 0: {MEND}",
    ),
    "twice": (
        "[{service: web, to: streams}, {service: web, to: streams}]",
        "ingress[1].service: web is there already, ingress[0]: write one entry for each name",
    ),
    "a name of ours": (
        "[{service: vsockproxy.x, to: streams}]",
        "ingress[0].service: names that begin with vsockproxy. are vsockproxy's own: "
        "write another name",
    ),
    "a header for a program that is told anyway": (
        "[{service: web, to: streams, proxy_protocol: v2}]",
        "ingress[0].proxy_protocol: programs that listen on the stream socket are told the client "
        "anyway: remove it",
    ),
    "on the stream socket of one of two workers": (
        "[{service: web, to: streams}]\nworkers: 2",
        "ingress[0].to: streams needs one worker, and there are 2: "
        "write workers: 1, or tcp://127.0.0.1:PORT here",
    ),
    "on a stream socket that there is not": (
        "[{service: web, to: streams}]\nshim: {streams: null}",
        "ingress[0].to: the stream socket is turned off: "
        "remove shim.streams: null, or write another address",
    ),
}


CERTIFICATE_MEND = "write chain and key, or self_signed in place of them"

TLS_FAULTS = {
    "a chain without its key": (
        "{certificate: {chain: /a}}",
        f"certificate.key: a certificate without its key: {CERTIFICATE_MEND}",
    ),
    "a key without its chain": (
        "{certificate: {key: /a}}",
        f"certificate.chain: a certificate without its chain: {CERTIFICATE_MEND}",
    ),
    "a source of nothing": (
        "{certificate: {}}",
        f"certificate.chain: a certificate without its chain: {CERTIFICATE_MEND}",
    ),
    "an unknown source": (
        "{certificate: selfsigned}",
        "certificate: 'selfsigned' does not fit: "
        "write self_signed or {chain: FILE, key: FILE} or {acme: {directory: URL}}",
    ),
    "an unknown key of a source": (
        "{certificate: {chian: /a, chain: /a, key: /b}}",
        "certificate.chian: unknown key: write chain",
    ),
    "a path that is not whole": (
        "{client_ca: clients.pem}",
        "client_ca: 'clients.pem' does not fit: write the absolute path of a file",
    ),
    "a name that is not in normal form": (
        "{names: [A.example]}",
        "names[0]: 'A.example' is not in normal form: write a.example",
    ),
    "a pattern for a name": (
        "{names: ['*.example']}",
        "names[0]: '*.example' is a pattern, where one host has to stand: "
        "write each host, or use the allowlist of a parent's or an enclave's file",
    ),
}


@pytest.mark.parametrize(
    ("tls", "mend"),
    [
        ("self_signed", "'self_signed' does not fit: write tls: {certificate: self_signed}"),
        ("true", "true does not fit: write tls: {}"),
        ("/etc/web.pem", "'/etc/web.pem' does not fit: write a mapping"),
    ],
)
def test_what_stands_in_place_of_the_section_is_told_its_place(tls: str, mend: str) -> None:
    yaml = f"[{{service: web, to: streams, tls: {tls}}}]"
    assert report(f"{ENCLAVE}ingress: {yaml}\n") == [f"f:2: ingress[0].tls: {mend}"]


@pytest.mark.parametrize("case", TLS_FAULTS)
def test_tls_of_a_service(case: str) -> None:
    tls, line = TLS_FAULTS[case]
    yaml = f"[{{service: web, to: streams, tls: {tls}}}]"
    assert report(f"{ENCLAVE}ingress: {yaml}\n") == [f"f:2: ingress[0].tls.{line}"]


@pytest.mark.parametrize("case", ENCLAVE_FAULTS)
def test_ingress_of_an_enclave(case: str) -> None:
    yaml, line = ENCLAVE_FAULTS[case]
    assert report(f"{ENCLAVE}ingress: {yaml}\n") == [f"f:2: {line}"]


def test_too_many_services() -> None:
    services = ", ".join(f"{{service: s{number}, to: streams}}" for number in range(33))
    line = "f:2: ingress: 33 services, and 32 are possible: write fewer"
    assert report(f"{ENCLAVE}ingress: [{services}]\n") == [line]


VALID = {
    "a service": f"{PARENT}ingress: [{{{LISTEN}, service: web}}]\n",
    "routes alone": f"{PARENT}ingress: [{{{LISTEN}, routes: [{{sni: '*.b', service: a}}]}}]\n",
    "by name": f"{PARENT}ingress: [{{{LISTEN}, service: web, name: ledger}}]\n",
    "behind a balancer": f"{PARENT}ingress: [{{{LISTEN}, service: web, proxy_protocol: v2}}]\n",
    "IPv6": f"{ENCLAVE}ingress: [{{service: web, to: 'tcp://[::1]:80'}}]\n",
    "localhost": f"{ENCLAVE}ingress: [{{service: web, to: 'tcp://localhost:80'}}]\n",
    "a unix socket": f"{ENCLAVE}ingress: [{{service: web, to: 'unix:///run/a.sock'}}]\n",
    "a program": f"{ENCLAVE}ingress: [{{service: web, to: streams}}]\n",
    "TLS": f"{ENCLAVE}ingress: [{{service: a, to: streams, tls: {{}}}}]\n",
    "TLS with files": f"{ENCLAVE}ingress: [{{service: a, to: streams, tls: {{certificate: "
    "{chain: /a, key: /b}, names: [a.example, 192.0.2.1], client_ca: /c, attestation: false}}]\n",
    "a header": f"{ENCLAVE}ingress: [{{service: a, to: 'unix:///a', proxy_protocol: v2}}]\n",
}


@pytest.mark.parametrize("case", VALID)
def test_valid_ingress(case: str) -> None:
    document = parse(VALID[case].encode(), "f")
    assert type(document).from_builtins(document.to_builtins()) == document
