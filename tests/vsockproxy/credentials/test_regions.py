import pytest

from vsockproxy.credentials.errors import CredentialsError
from vsockproxy.credentials.regions import endpoint_host, parse_region

HOSTS = {
    "eu-west-1": "kms.eu-west-1.amazonaws.com",
    "ap-southeast-7": "kms.ap-southeast-7.amazonaws.com",
    "us-gov-east-1": "kms.us-gov-east-1.amazonaws.com",
    "cn-north-1": "kms.cn-north-1.amazonaws.com.cn",
    "cn-northwest-1": "kms.cn-northwest-1.amazonaws.com.cn",
    "eusc-de-east-1": "kms.eusc-de-east-1.amazonaws.eu",
    "us-iso-east-1": "kms.us-iso-east-1.c2s.ic.gov",
    "us-isob-east-1": "kms.us-isob-east-1.sc2s.sgov.gov",
    "eu-isoe-west-1": "kms.eu-isoe-west-1.cloud.adc-e.uk",
    "us-isof-south-1": "kms.us-isof-south-1.csp.hci.ic.gov",
}


@pytest.mark.parametrize(("region", "host"), HOSTS.items())
def test_a_region_has_the_domain_of_its_partition(region: str, host: str) -> None:
    assert parse_region(region) == region
    assert endpoint_host("kms", region) == host


@pytest.mark.parametrize(
    "text",
    ["", "eu", "eu-west", "eu-west-", "EU-WEST-1", "eu-west-1a", "eu-west-1\n", "eu-west-1.evil"],
)
def test_what_is_no_region(text: str) -> None:
    with pytest.raises(CredentialsError):
        parse_region(text)
