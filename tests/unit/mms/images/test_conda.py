"""Parsing of conda's package specifications."""

import pytest

from mms.images.plan.conda import MatchSpec, MatchSpecError, parse


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("numpy", MatchSpec("numpy")),
        ("NumPy", MatchSpec("numpy")),
        ("numpy=1.26", MatchSpec("numpy", "1.26.*")),
        ("numpy =1.26", MatchSpec("numpy", "1.26.*")),
        ("numpy = 1.26", MatchSpec("numpy", "1.26.*")),
        ("numpy=1.26.*", MatchSpec("numpy", "1.26.*")),
        ("numpy 1.26.*", MatchSpec("numpy", "1.26.*")),
        ("numpy==1.26", MatchSpec("numpy", "1.26")),
        ("numpy 1.26", MatchSpec("numpy", "1.26")),
        ("numpy=1.26=py311*", MatchSpec("numpy", "1.26", "py311*")),
        ("numpy 1.26 py311_0", MatchSpec("numpy", "1.26", "py311_0")),
        ("numpy 1.26.* py311_0", MatchSpec("numpy", "1.26.*", "py311_0")),
        ("numpy=1.26.*=*_openblas", MatchSpec("numpy", "1.26.*", "*_openblas")),
        ("numpy>=1.2,<2", MatchSpec("numpy", ">=1.2,<2")),
        ("numpy >= 1.2 , < 2", MatchSpec("numpy", ">=1.2,<2")),
        ("numpy>=1.2", MatchSpec("numpy", ">=1.2")),
        ("numpy!=1.2", MatchSpec("numpy", "!=1.2")),
        ("numpy~=1.2", MatchSpec("numpy", "~=1.2")),
        ("numpy 1.8|1.9*", MatchSpec("numpy", "1.8|1.9*")),
        ("numpy=1.8|=1.9", MatchSpec("numpy", "=1.8|=1.9")),
        ("numpy (>=1.8,<2)|3.*", MatchSpec("numpy", "(>=1.8,<2)|3.*")),
        ("conda-forge::numpy=1.26", MatchSpec("numpy", "1.26.*")),
        ("conda-forge/linux-64::numpy", MatchSpec("numpy")),
        ("https://conda.example/channel::numpy", MatchSpec("numpy")),
        ("numpy[version='>=1.2,<2', build=py311*]", MatchSpec("numpy", ">=1.2,<2", "py311*")),
        ('conda-forge::numpy[version="1.26"]', MatchSpec("numpy", "1.26")),
        ("_libgcc_mutex=0.1=conda_forge", MatchSpec("_libgcc_mutex", "0.1", "conda_forge")),
        ("scikit-learn=1.5", MatchSpec("scikit-learn", "1.5.*")),
    ],
)
def test_a_specification_has_a_name_a_version_and_a_build(text: str, spec: MatchSpec) -> None:
    assert parse(text) == spec


@pytest.mark.parametrize("text", ["", "=1", "::", ">=3", "numpy >=1 <2", "numpy[]x", "a" * 2000])
def test_other_texts_are_rejected(text: str) -> None:
    with pytest.raises(MatchSpecError):
        parse(text)


@pytest.mark.parametrize(
    ("text", "minors"),
    [
        ("python=3.11", ["3.11"]),
        ("python==3.11", ["3.11"]),
        ("python=3.11.4", ["3.11"]),
        ("python 3.11.*", ["3.11"]),
        ("python=3.11=h955ad1f_0", ["3.11"]),
        ("python 3.10.*|3.12.*", ["3.10", "3.12"]),
        ("python>=3.9,<3.12", ["3.9", "3.10", "3.11"]),
        ("python>=3.9,<3.12,!=3.10.*", ["3.9", "3.11"]),
        ("python>3.9,<=3.10.2", ["3.9", "3.10"]),
        ("python>=3.9,<3.11,!=3.9.0", ["3.9", "3.10"]),
        ("python (3.9.*|3.10.*),!=3.9.*", ["3.10"]),
        ("python~=3.11.2", ["3.11"]),
        ("python=2", ["2.6", "2.7"]),
        ("python<3,>=2.7", ["2.7"]),
    ],
)
def test_a_version_of_python_allows_these_releases(text: str, minors: list[str]) -> None:
    assert parse(text).python_versions() == minors


@pytest.mark.parametrize("text", ["python=3", "python", "python=*", "python>=3", "python 3.*", "python~=3.5"])
def test_a_range_allows_all_its_releases(text: str) -> None:
    assert {"3.11", "3.12", "3.13"} <= set(parse(text).python_versions())


@pytest.mark.parametrize("text", ["python (3.9", "python three", "python 3.9)", "python >=", "python ,"])
def test_an_invalid_version_is_an_error(text: str) -> None:
    with pytest.raises(MatchSpecError):
        parse(text).python_versions()


@pytest.mark.parametrize(
    ("text", "requirement"),
    [
        ("numpy", "numpy"),
        ("numpy=1.26", "numpy==1.26.*"),
        ("numpy==1.26.4", "numpy==1.26.4"),
        ("numpy=1.26.4=py311h24aa872_0", "numpy==1.26.4"),
        ("numpy>=1.2,<2", "numpy>=1.2,<2"),
        ("numpy!=1.3.*", "numpy!=1.3.*"),
        ("numpy 1.8|1.9", "numpy"),
        ("numpy=*", "numpy"),
        ("jpeg=9e_x", "jpeg"),
        ("pytorch=2", "torch==2.*"),
        ("ruamel_yaml", "ruamel.yaml"),
    ],
)
def test_a_specification_has_an_equivalent_requirement(text: str, requirement: str) -> None:
    assert parse(text).requirement == requirement
