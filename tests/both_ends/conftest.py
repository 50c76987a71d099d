"""The kinds of links that both-ends tests run over."""

import pytest

from tests.support.pair import LinkKind


@pytest.fixture(params=["unix", pytest.param("vsock", marks=pytest.mark.vsock)])
def kind(request: pytest.FixtureRequest) -> LinkKind:
    value: LinkKind = request.param
    return value
