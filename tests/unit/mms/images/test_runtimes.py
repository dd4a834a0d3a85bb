"""Runtime types and their aliases."""

import pytest

from mms.images.runtimes import RUNTIMES, UnknownRuntimeError, canonical_name, unavailable_reason


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ("ScikitPython", "ScikitPython"),
        ("scikitpython", "ScikitPython"),
        ("SparkPython", "SparkPython"),
        ("parkPython", "SparkPython"),
        ("CNTKPython", "CNTKPython"),
        ("TLC", "TLC"),
        ("Tlc37", "TLC"),
        ("Python", "Python"),
    ],
)
def test_spellings_map_to_one_runtime(sent: str, name: str) -> None:
    assert canonical_name(sent) == name


def test_an_unknown_runtime_lists_the_existing_ones() -> None:
    with pytest.raises(UnknownRuntimeError, match=r"'Fortran'.*ScikitPython"):
        canonical_name("Fortran")


@pytest.mark.parametrize("name", ["Python", "ScikitPython"])
def test_plain_python_runs_here(name: str) -> None:
    assert unavailable_reason(name) == ""


@pytest.mark.parametrize(
    ("name", "missing"), [("parkPython", "Spark"), ("CNTKPython", "Python 3.6"), ("Tlc37", ".NET")]
)
def test_an_unavailable_runtime_names_what_is_missing(name: str, missing: str) -> None:
    assert missing in unavailable_reason(name)


def test_a_supporting_engine_makes_a_runtime_available() -> None:
    assert unavailable_reason("SparkPython", frozenset({"process", "docker"})) == ""


def test_runtimes_without_an_engine_name_what_is_missing() -> None:
    for runtime in RUNTIMES.values():
        assert runtime.engines
        assert bool(runtime.missing) == ("process" not in runtime.engines)
