from pathlib import Path

import cbor2
import pytest

from enclave_side.entropy import EntropyError, credit_entropy, prepare_entropy
from vsockproxy.config.model import Entropy


class FakeModule:
    """Answers as the Nitro Secure Module does."""

    def __init__(self, response: object) -> None:
        self.requests: list[object] = []
        self.credited: list[bytes] = []
        self._response = response

    def ask(self, request: bytes) -> bytes:
        self.requests.append(cbor2.loads(request))
        return cbor2.dumps(self._response)

    def prepare(self, settings: Entropy, source: Path = Path("/nowhere")) -> None:
        prepare_entropy(settings, ask=self.ask, credit=self.credited.append, current_source=source)


def test_without_settings_nobody_is_asked() -> None:
    module = FakeModule({"Error": "InternalError"})
    module.prepare(Entropy())
    assert (module.requests, module.credited) == ([], [])


def test_a_seed_is_asked_for_and_credited() -> None:
    module = FakeModule({"GetRandom": {"random": bytes(range(256))}})
    module.prepare(Entropy(seed=True))
    assert (module.requests, module.credited) == (["GetRandom"], [bytes(range(256))])


def test_a_module_that_refuses_is_an_error_and_nothing_is_credited() -> None:
    module = FakeModule({"Error": "InternalError"})
    with pytest.raises(EntropyError, match=r"^machine.entropy.seed: the module refused GetRandom"):
        module.prepare(Entropy(seed=True))
    assert module.credited == []


def test_the_right_generator(tmp_path: Path) -> None:
    (tmp_path / "rng_current").write_text("nsm-hwrng\n")
    FakeModule({}).prepare(Entropy(source="nsm-hwrng"), tmp_path / "rng_current")


@pytest.mark.parametrize("current", ["virtio_rng.0", "none", "nsm-hwrng2", ""])
def test_another_generator_is_an_error_before_the_module_is_asked(
    current: str, tmp_path: Path
) -> None:
    (tmp_path / "rng_current").write_text(f"{current}\n")
    module = FakeModule({"GetRandom": {"random": b"abc"}})
    with pytest.raises(EntropyError, match=f"is '{current}', not 'nsm-hwrng'"):
        module.prepare(Entropy(source="nsm-hwrng", seed=True), tmp_path / "rng_current")
    assert module.requests == []


def test_a_kernel_without_generators_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EntropyError, match="rng_current: No such file or directory"):
        FakeModule({}).prepare(Entropy(source="nsm-hwrng"), tmp_path / "rng_current")


def test_a_device_that_is_none_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "random"
    file.write_bytes(b"")
    with pytest.raises(EntropyError, match=f"{file}: Inappropriate ioctl"):
        credit_entropy(b"abc", str(file))


def test_a_machine_without_a_module_is_an_error() -> None:
    with pytest.raises(EntropyError, match="seed: /dev/nsm: No such file or directory"):
        prepare_entropy(Entropy(seed=True), credit=list[bytes]().append)
