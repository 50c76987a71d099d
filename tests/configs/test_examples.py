from pathlib import Path

import pytest
import yaml

from vsockproxy.config.compare import compare_sides
from vsockproxy.config.document import Kind
from vsockproxy.config.load import load
from vsockproxy.config.model import (
    Command,
    EnclaveConfig,
    EnclaveLog,
    Limits,
    Machine,
    ParentConfig,
    ParentLog,
    Shim,
)

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
EXAMPLES: dict[str, Kind] = {
    "parent.yaml": "parent",
    "enclave.yaml": "enclave",
    "aws-vsock-proxy.yaml": "aws",
}


def test_every_example_is_tested() -> None:
    assert {path.name for path in CONFIGS.glob("*.yaml")} == set(EXAMPLES)


@pytest.mark.parametrize(("name", "kind"), EXAMPLES.items())
def test_an_example_loads(name: str, kind: Kind) -> None:
    assert load(str(CONFIGS / name)).kind == kind


def test_awss_file_is_unchanged() -> None:
    original = ROOT / "tests" / "vectors" / "aws" / "vsock-proxy.yaml"
    assert (CONFIGS / "aws-vsock-proxy.yaml").read_bytes() == original.read_bytes()


def test_the_examples_of_both_sides_agree() -> None:
    parent, enclave = (load(str(CONFIGS / name)) for name in ("parent.yaml", "enclave.yaml"))
    assert compare_sides([parent], [enclave]) == ()


def test_the_values_in_the_parents_example_are_the_defaults() -> None:
    config = load(str(CONFIGS / "parent.yaml")).config
    assert isinstance(config, ParentConfig)
    default = ParentConfig(listen=config.listen)
    for name in ("version", "mode", "mixed", "require_tls", "workers"):
        assert getattr(config, name) == getattr(default, name), name
    assert (config.limits, config.log) == (Limits(), ParentLog())


def test_the_values_in_the_enclaves_example_are_the_defaults() -> None:
    config = load(str(CONFIGS / "enclave.yaml")).config
    assert isinstance(config, EnclaveConfig)
    default = EnclaveConfig(parent=config.parent)
    for name in ("version", "mode", "require_tls", "links", "workers"):
        assert getattr(config, name) == getattr(default, name), name
    assert (config.limits, config.log) == (Limits(), EnclaveLog())
    assert config.shim == Shim(environment=False)
    assert config.command == Command(user="app")
    assert (config.commands, config.machine) == ([], Machine())


@pytest.mark.parametrize(("name", "model"), [("parent", ParentConfig), ("enclave", EnclaveConfig)])
def test_an_example_has_every_key(
    name: str, model: type[ParentConfig] | type[EnclaveConfig]
) -> None:
    text = (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(text).keys() == set(model.__struct_fields__)
