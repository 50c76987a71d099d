from pathlib import Path

import pytest
import yaml

from vsockproxy.config.compare import compare_sides
from vsockproxy.config.document import Kind
from vsockproxy.config.load import ConfigErrors, load, parse
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
    built, _, unbuilt = text.partition("# Not in this version:\n#\n")
    comments = [line.removeprefix("# ") for line in unbuilt.splitlines()]
    keys = yaml.safe_load(built).keys() | (yaml.safe_load("\n".join(comments)) or {}).keys()
    assert keys == set(model.__struct_fields__)


@pytest.mark.parametrize(
    ("name", "first_line"),
    [("parent", "listen: vsock://any:5000"), ("enclave", "parent: vsock://3:5000")],
)
def test_what_an_example_says_is_not_in_this_version_is_not(name: str, first_line: str) -> None:
    text = (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8")
    lines = text.partition("# Not in this version:\n#\n")[2].splitlines()
    unbuilt = "\n".join([first_line, *(line.removeprefix("# ") for line in lines), ""])
    if not lines:
        assert load(str(CONFIGS / f"{name}.yaml")).kind == name  # all that it says is built
        return
    with pytest.raises(ConfigErrors) as caught:
        parse(unbuilt.encode(), "f")
    assert {error.what for error in caught.value.errors} == {"not in this version"}
    reported = {error.path.split(".")[0].split("[")[0] for error in caught.value.errors}
    assert reported == yaml.safe_load(unbuilt).keys() - {first_line.split(":")[0]}
