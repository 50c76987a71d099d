import pytest

from vsockproxy.config.scalars import decode_scalar, describe_value, scalar_schema

VALUES: dict[str, tuple[object, str]] = {
    "nothing": (None, "nothing (null)"),
    "true": (True, "true"),
    "a number": (1.5, "1.5"),
    "text": ("a'b", '"a\'b"'),
    "long text": ("x" * 100, f"'{'x' * 80}…'"),
    "a list": ([1], "a list"),
    "a mapping": ({}, "a mapping"),
}


@pytest.mark.parametrize(("value", "words"), VALUES.values(), ids=VALUES)
def test_a_value_is_described_in_bounded_words(value: object, words: str) -> None:
    assert describe_value(value) == words


def test_a_type_of_no_configuration_file_is_an_error() -> None:
    with pytest.raises(TypeError, match="is no type of a configuration file"):
        decode_scalar(bytes, "x")
    with pytest.raises(TypeError, match="is no type of a configuration file"):
        scalar_schema(bytes)
