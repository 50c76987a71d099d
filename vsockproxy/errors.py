"""The root of every exception that this project raises on purpose.

What other modules have to do with; a module's own errors are in the module.

VsockproxyError
├── addresses.AddressError           a text that is no address; says what to write instead
├── config.ConfigErrors              a file that breaks its schema; one entry for each fault
├── config.FileNotReadable           a file that cannot be opened or read
├── session.SessionError             what a peer or a caller did to a session
├── attestation.NsmError             what the Nitro Secure Module refused, or should not have said
├── attestation.EnvelopeError        an envelope of KMS that cannot be opened
├── attestation.BerError             bytes that are not the BER that was expected
├── attestation.DocumentRefused      an attestation document that does not verify; carries a reason
├── attestation.RequirementError     a demand on documents that makes no sense
├── certificates.CertificateError    a certificate or its key that cannot be had, or not be used
├── attested_tls.Unreachable         a server that is to be verified, and that nobody can connect to
├── attestation.ConnectionRefused    TLS that does not, or not provably, end in the enclave
├── attestation.EifRefused           bytes that are no enclave image file; says where and why
├── attestation.SignatureRefused     an image that the key of its certificate did not sign
├── attestation.UnusableInput        what no enclave image can be made of
├── protocols.ProtocolError          what a client sent that its protocol does not have
├── dataplane.DialError              a connection that could not be made
├── client.PacketError               a packet of the stream socket that is none of its table
├── client.StreamSocketMissing       the stream socket is not named, or nobody listens on it
├── client.OpeningCut                its worker ended before it had answered
└── Refused                          a stream that policy, the peer or a limit refused
    └── client.StreamRefused         the same as a program sees it, an OSError of its kind too
"""


class VsockproxyError(Exception):
    """Anything this project reports by exception; the text is fit for a user."""


class Refused(VsockproxyError):
    """A stream was refused, on this side or by the peer.

    Args:
        reason: one of the reasons of `vsockproxy.policy.reasons.Reason`, as text.
        text: one line that says what was refused and what to do.
    """

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(f"{reason}: {text}")
        self.reason = reason
        self.text = text
