"""What a KMS key policy says of an image: the Condition block of a statement that allows.

The keys are those of the KMS developer guide, "Condition keys for AWS Nitro Enclaves"; the values
are hexadecimal, and the guide's operator ignores case.
"""

from typing import Final

from vsockproxy.attestation.eif import EMPTY_PCR, NO_RAMDISKS_PCR, Measurements

__all__ = ("kms_condition",)

_PREFIX: Final = "kms:RecipientAttestation:"


def kms_condition(measurements: Measurements) -> dict[str, dict[str, dict[str, str]]]:
    """The block for an image.

    A register without content is left out, since every debug enclave has it; so is the one of no
    application, which every image with a single ramdisk has.

    Args:
        measurements: of the image.
    """
    values = {
        f"{_PREFIX}{'ImageSha384' if number == 0 else f'PCR{number}'}": value.hex()
        for number, value in measurements.pcrs.items()
        if value not in (EMPTY_PCR, NO_RAMDISKS_PCR)
    }
    return {"Condition": {"StringEqualsIgnoreCase": values}}
