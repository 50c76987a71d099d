"""Imports of packages that go past Python's sockets."""

import importlib
import sys
from pathlib import Path

import pytest

from enclave_side.shim.socket_shim.passing_by import PASSING_BY, ImportWatch


@pytest.mark.parametrize("name", PASSING_BY)
def test_a_package_that_passes_by_is_said_once(name: str) -> None:
    said: list[str] = []
    watch = ImportWatch(said.append)
    for _ in range(2):
        assert watch.find_spec(name, None) is None
        assert watch.find_spec(f"{name}.core", None) is None
    assert len(said) == 1
    assert said[0].startswith(f"{name} connects in C, past the socket shim: ")


def test_of_other_modules_nothing_is_said() -> None:
    said: list[str] = []
    watch = ImportWatch(said.append)
    assert watch.find_spec("socket", None) is None
    assert watch.find_spec("not.uvloop", None) is None
    assert said == []


RESOLVERS = {
    "with c-ares": ("DefaultResolver = 'c-ares'\nThreadedResolver = 'system'\n", "system"),
    "of another version": ("DefaultResolver = 'c-ares'\n", "c-ares"),
}


@pytest.mark.parametrize("case", RESOLVERS)
def test_aiohttp_asks_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    source, expected = RESOLVERS[case]
    (tmp_path / "aiohttp").mkdir()
    (tmp_path / "aiohttp" / "__init__.py").write_text("")
    (tmp_path / "aiohttp" / "resolver.py").write_text(source)
    for name in [name for name in sys.modules if name.partition(".")[0] == "aiohttp"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", [ImportWatch(), *sys.meta_path])
    resolver = importlib.import_module("aiohttp.resolver")
    assert expected == resolver.DefaultResolver
    for name in ("aiohttp", "aiohttp.resolver"):
        monkeypatch.delitem(sys.modules, name)
