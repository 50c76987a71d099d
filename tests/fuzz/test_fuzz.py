import random
from pathlib import Path

import pytest

from tests.fuzz import run
from tests.fuzz.fuzzer import MAX_FAILURES, TooMuchMemory, TooSlow, check, fuzz
from tests.fuzz.mutator import MAX_INPUT_BYTES, Mutator
from tests.fuzz.target import KIBIBYTE, Target, in_pieces, same_however_cut
from tests.fuzz.targets import TARGETS

SEED = 20_260_101
RUNS = 300


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_keeps_its_invariant(name: str) -> None:
    report = fuzz(TARGETS[name], SEED, runs=RUNS)

    assert report.failures == []
    assert report.executions == RUNS
    assert len(report.outcomes) > 5


@pytest.mark.parametrize("name", TARGETS)
def test_every_corpus_keeps_the_invariant_and_its_memory(name: str) -> None:
    target = TARGETS[name]
    for data in target.corpus:
        target.execute(data)  # Imports and caches settle.

    assert all(check(target, data) for data in target.corpus)


def fails_on(wanted: bytes) -> Target:
    def execute(data: bytes) -> str:
        if wanted in data:
            raise IndexError("planted")
        return "value"

    return Target("planted", execute, corpus=(b"0123456789",), dictionary=(b"needle",))


def test_a_planted_fault_is_found_once() -> None:
    report = fuzz(fails_on(b"needle"), SEED, runs=RUNS)

    (failure,) = report.failures
    assert b"needle" in failure.data
    assert failure.text.startswith("IndexError at ")
    assert failure.text.endswith(": planted")
    assert report.executions == RUNS


def test_faults_in_many_places_end_the_run() -> None:
    def execute(data: bytes) -> str:
        # One statement for each line, so that each fault has a place of its own.
        lines = "\n".join(f"if data[-1] % 8 == {number}: 1 / 0" for number in range(8))
        exec(compile(lines, "planted", "exec"), {"data": data or b"\x00"})
        return "value"

    report = fuzz(Target("planted", execute, corpus=(bytes(range(32)),)), SEED, runs=10_000)

    assert len(report.failures) == MAX_FAILURES
    assert report.executions < 10_000


def test_the_seed_decides_the_inputs() -> None:
    def inputs(seed: int) -> list[bytes]:
        seen: list[bytes] = []

        def execute(data: bytes) -> str:
            seen.append(data)
            return f"{len(data) % 7 * 'x'}"

        fuzz(Target("recorded", execute, corpus=(b"corpus",)), seed, runs=200)
        return seen

    assert inputs(1) == inputs(1)
    assert inputs(1) != inputs(2)


def test_an_endless_loop_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    def execute(data: bytes) -> str:
        while True:
            pass

    monkeypatch.setattr("tests.fuzz.fuzzer.MOST_CPU_SECONDS", 0.05)
    with pytest.raises(TooSlow):
        check(Target("endless", execute, corpus=(b"",)), b"")


def test_an_allocation_out_of_proportion_is_found() -> None:
    def execute(data: bytes) -> str:
        return "value" if bytearray(len(data) * KIBIBYTE) else "more"

    target = Target("greedy", execute, corpus=(b"",))

    assert check(target, bytes(100)) == "value"
    with pytest.raises(TooMuchMemory):
        check(target, bytes(1000))


def test_pieces_are_the_whole_and_always_the_same() -> None:
    data = random.Random(SEED).randbytes(10_000)

    assert b"".join(in_pieces(data)) == data
    assert in_pieces(data) == in_pieces(data)
    assert len(in_pieces(data)) > 1
    with pytest.raises(AssertionError, match="in pieces"):
        same_however_cut(lambda cut: len(cut(data)))


def test_mutants_are_bounded() -> None:
    mutator = Mutator(random.Random(SEED), (b"x" * 40_000,))

    sizes = [len(mutator.mutate((bytes(50_000), b""))) for _ in range(RUNS)]

    assert max(sizes) == MAX_INPUT_BYTES
    assert min(sizes) == 0


def test_the_command_reports_and_repeats_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(run, "TARGETS", {"planted": fails_on(b"needle")})

    assert run.main(["--runs", "300", "--seed", "7", "--save", str(tmp_path)]) == 1

    output = capsys.readouterr().out
    saved = tmp_path / "planted-1"
    assert "seed 7\n" in output
    assert "planted: 300 executions, 1 outcomes, 1 failures\n" in output
    assert b"needle".hex() in output
    assert f"again: python -m tests.fuzz.run --target planted --input {saved}\n" in output
    assert run.main(["--target", "planted", "--input", str(saved)]) == 1
    assert "IndexError: planted" in capsys.readouterr().out

    saved.write_bytes(b"harmless")
    assert run.main(["--target", "planted", "--input", str(saved)]) == 0
    assert capsys.readouterr().out == "planted: value\n"


def test_one_input_needs_a_target(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        run.main(["--input", str(tmp_path / "input")])

    assert caught.value.code == 2
    assert "--target" in capsys.readouterr().err


def test_the_command_succeeds_without_failures(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--runs", "20", "--target", "endpoint"]) == 0
    assert run.main(["--seconds", "0.05", "--target", "endpoint"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("seed ")
    assert lines[1].startswith("endpoint: 20 executions, ")
    assert lines[3].startswith("endpoint: ")
