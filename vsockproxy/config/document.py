"""A valid configuration together with where each of its values stands."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Final, Literal, Self

import msgspec

from vsockproxy.addresses import Destination, TcpAddress, UnixAddress, VsockAddress
from vsockproxy.config.model import AnyConfig, AwsAllowlist, EnclaveConfig, ParentConfig
from vsockproxy.config.scalars import decode_scalar

__all__ = ("CONFIG_TYPES", "Document", "Kind", "encode", "line_of")

Kind = Literal["parent", "enclave", "aws"]

CONFIG_TYPES: Final[Mapping[Kind, type[AnyConfig]]] = {
    "parent": ParentConfig,
    "enclave": EnclaveConfig,
    "aws": AwsAllowlist,
}


@dataclass(frozen=True, slots=True)
class Document:
    """A configuration, the file it is from as the user gave it, and the line of each path.

    A document that a program made, without a file, has a word for its origin as `file` and no
    lines.
    """

    config: AnyConfig
    file: str
    lines: Mapping[str, int]
    empty_sections: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Paths of sections that a file names and says nothing of, so that they are off, and what such
    a section has to be. For advice: it does not travel to other processes."""

    @property
    def kind(self) -> Kind:
        """Which of the three kinds of file this is."""
        match self.config:
            case ParentConfig():
                return "parent"
            case EnclaveConfig():
                return "enclave"
            case AwsAllowlist():
                return "aws"

    def location(self, path: str) -> str:
        """Say where `path` stands, as `parent.yaml:7`, for logs and refusals."""
        name = PurePath(self.file).name or self.file
        return f"{name}:{line_of(self.lines, path)}" if self.lines else name

    def to_builtins(self) -> dict[str, Any]:
        """Turn it into text, numbers, lists and mappings, which CBOR can carry."""
        return {
            "kind": self.kind,
            "config": encode(self.config),
            "file": self.file,
            "lines": dict(self.lines),
        }

    @classmethod
    def from_builtins(cls, data: Mapping[str, Any]) -> Self:
        """Turn the result of `to_builtins` back.

        Raises:
            msgspec.ValidationError, AddressError, KeyError: `data` is something else.
        """
        config_type = CONFIG_TYPES[data["kind"]]
        config = msgspec.convert(data["config"], config_type, dec_hook=decode_scalar)
        lines = msgspec.convert(data["lines"], dict[str, int])
        return cls(config, msgspec.convert(data["file"], str), lines)


def line_of(lines: Mapping[str, int], path: str) -> int:
    """Find the line of `path`, or else of the innermost thing around it that has a line."""
    while path and path not in lines:
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    return lines.get(path, 1)


def encode(value: Any) -> Any:
    """Write a value of the model as YAML has it; what `decode_scalar` parses is text again."""
    match value:
        case msgspec.Struct():
            names = zip(value.__struct_encode_fields__, value.__struct_fields__, strict=True)
            return {key: encode(getattr(value, name)) for key, name in names}
        case list() | tuple():
            return [encode(item) for item in value]
        case dict():
            return {key: encode(item) for key, item in value.items()}
        case VsockAddress() | UnixAddress() | TcpAddress() | Destination():
            return str(value)
        case _:
            return value
