import pytest

from vsockproxy.addresses import TcpAddress, VsockAddress
from vsockproxy.config.advice import advise
from vsockproxy.config.document import Document
from vsockproxy.config.load import parse
from vsockproxy.config.model import Admin, ParentConfig, ParentIngress

PARENT = "listen: vsock://any:5000\n"
METADATA = "{address: 169.254.169.254, port: 80, metadata: true}"
PCR = "ab" * 48


@pytest.mark.parametrize(
    ("yaml", "lines"),
    [
        pytest.param(f"{PARENT}allowlist: [{{address: a.b, port: 443}}]", [], id="nothing"),
        pytest.param(
            f"{PARENT}allowlist: [{METADATA}]",
            [
                "parent.yaml:2: allowlist[0].metadata: the unit vsockproxy-parent.service may not "
                "reach 169.254.169.254: a drop-in for it with IPAddressAllow=169.254.169.254 in "
                "[Service]"
            ],
            id="the metadata service",
        ),
        pytest.param(
            f"{PARENT}enclaves:\n- {{cid: 16, allowlist: [{METADATA}]}}",
            [
                "parent.yaml:3: enclaves[0].allowlist[0].metadata: the unit "
                "vsockproxy-parent.service may not reach 169.254.169.254: a drop-in for it with "
                "IPAddressAllow=169.254.169.254 in [Service]"
            ],
            id="for one enclave",
        ),
        pytest.param(
            f"{PARENT}credentials: {{enclaves: [16], imds: 'http://169.254.169.254'}}",
            [
                "parent.yaml:2: credentials.imds: the unit vsockproxy-parent.service may not reach "
                "169.254.169.254: a drop-in for it with IPAddressAllow=169.254.169.254 in "
                "[Service], or credentials.socket and vsockproxy-credentials.service in its place"
            ],
            id="its own process for credentials",
        ),
        pytest.param(
            f"{PARENT}credentials: {{enclaves: [16], imds: 'http://127.0.0.1:1338'}}",
            [],
            id="a stand-in on this machine",
        ),
        pytest.param(
            f"{PARENT}enclaves:\n- {{pcrs: {{1: {PCR}, 4: {PCR}}}}}\n- {{pcrs: {{8: {PCR}}}}}",
            [
                "parent.yaml:3: enclaves[0].pcrs: none of these PCRs says what code runs: any "
                "image has them: write PCR0 of the image, or PCR8 of its signer"
            ],
            id="measurements of no code",
        ),
        pytest.param(
            f"{PARENT}allowlist: [{{address: a.test, port: 443}}]\nenclaves:\n- {{cid: 16}}\n"
            f"- {{pcrs: {{0: {PCR}}}}}",
            [
                "parent.yaml:2: allowlist: no enclave has this list: enclaves[1] could be for "
                "every CID: write it into entries with the CIDs of those who may do without "
                "attestation"
            ],
            id="a list for nobody",
        ),
        pytest.param(
            f"{PARENT}allowlist: [{{address: a.test, port: 443}}]\n"
            f"enclaves: [{{cid: 16, pcrs: {{0: {PCR}}}}}]",
            [],
            id="a list for other CIDs",
        ),
        pytest.param(
            f"parent: vsock://3:5000\nallowlist: [{METADATA}]", [], id="an enclave's file"
        ),
        pytest.param(
            "parent: vsock://3:5000\nattestation: {device: software}",
            [
                "parent.yaml:2: attestation.device: a software NSM is for development and tests: "
                "its documents prove nothing: write /dev/nsm for an enclave"
            ],
            id="a software module",
        ),
        pytest.param("parent: vsock://3:5000\nattestation: {}", [], id="a device"),
        pytest.param(
            "parent: vsock://3:5000\nattestation: {root: /root.pem}",
            [
                "parent.yaml:2: attestation.root: nothing in an enclave verifies documents: with a "
                "device this has no effect: remove it, and name the root where they are verified: "
                "parent.yaml, or --root"
            ],
            id="a root for a device",
        ),
    ],
)
def test_advice(yaml: str, lines: list[str]) -> None:
    assert [str(each) for each in advise(parse(yaml.encode(), "parent.yaml"))] == lines


@pytest.mark.parametrize(
    ("port", "warned"),
    [
        pytest.param(443, True, id="a port for which one needs a capability"),
        pytest.param(1023, True, id="the last of them"),
        pytest.param(1024, False, id="the first that anybody may have"),
        pytest.param(0, False, id="one that the kernel chooses"),
    ],
)
def test_low_ports(port: int, warned: bool) -> None:
    endpoint = TcpAddress("0.0.0.0", port)
    config = ParentConfig(
        listen=[VsockAddress(3, 443)],
        ingress=[ParentIngress(listen=endpoint, service="web")],
        admin=Admin(listen=endpoint),
    )
    lines = [str(each) for each in advise(Document(config, "parent.yaml", {}))]
    paths = ["ingress[0].listen", "admin.listen"] if warned else []
    assert lines == [
        f"parent.yaml:1: {path}: the unit vsockproxy-parent.service has no capability for port "
        f"{port}: let systemd listen: a drop-in for vsockproxy-parent.socket with "
        f"ListenStream=0.0.0.0:{port}"
        for path in paths
    ]


NOTHING_WRITTEN = {
    "kms": (
        "kms:\n",
        "f:2: kms: nothing is written here, so it is off: write kms: {}, or remove it",
    ),
    "credentials": (
        "credentials:   # for SDKs\n",
        "f:2: credentials: nothing is written here, so it is off: "
        "write credentials: {}, or remove it",
    ),
    "what needs more": (
        "machine:\n  clock:\n",
        "f:3: machine.clock: nothing is written here, so it is off: "
        "write a mapping with source, or remove it",
    ),
    "TLS of a service": (
        "ingress:\n- service: web\n  to: tcp://127.0.0.1:80\n  tls:\n",
        "f:5: ingress[0].tls: nothing is written here, so it is off: write tls: {}, or remove it",
    ),
    "off in words": ("kms: null\ncredentials: ~\n", None),
    "what is no section": ("shim:\n  socks5:\n", None),
}


@pytest.mark.parametrize(("yaml", "said"), NOTHING_WRITTEN.values(), ids=NOTHING_WRITTEN)
def test_a_section_with_nothing_in_it_is_warned_of(yaml: str, said: str | None) -> None:
    document = parse(f"parent: vsock://3:5000\n{yaml}".encode(), "f")
    assert [str(each) for each in advise(document)] == ([] if said is None else [said])
