"""Requirements files and conda files can list package names and versions only."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement

from mms.images.plan.requirements import RequirementsError, combine, parse, parse_conda, restrict_hashes


def lines(text: str) -> list[str]:
    return [item.line for item in parse(text)]


def test_ordinary_files_are_parsed() -> None:
    text = """# what the model needs
    scikit-learn==1.7.2
    Numpy >= 2 , < 3   # a comment
    uvicorn[standard] ; python_version < "4"

    pandas==2.3.3 \\
        --hash=sha256:aaaa \\
        --hash=sha256:BBBB
    """
    assert lines(text) == [
        "scikit-learn==1.7.2",
        "numpy<3,>=2",
        'uvicorn[standard]; python_version < "4"',
        "pandas==2.3.3 --hash=sha256:aaaa --hash=sha256:BBBB",
    ]


def test_windows_line_ends_are_accepted() -> None:
    assert lines("numpy\r\nscipy\r\n") == ["numpy", "scipy"]


@pytest.mark.parametrize(
    "line",
    [
        "--index-url https://evil.example/simple",
        "-i https://evil.example/simple",
        "--extra-index-url=https://evil.example/simple",
        "--find-links /etc",
        "-f .",
        "--trusted-host evil.example",
        "--no-binary :all:",
        "-r /etc/passwd",
        "-c constraints.txt",
        "-e git+https://evil.example/x#egg=x",
        "numpy @ https://evil.example/numpy.whl",
        "numpy @ file:///etc/passwd",
        "git+https://evil.example/x",
        "https://evil.example/x.whl",
        "./local",
        "/etc/passwd",
        "../up",
        "~/x",
        "C:\\x",
        "${HOME}",
        "numpy==${SECRET_KEY}",
        "numpy --config-settings=x",
        "numpy --global-option=x",
        "numpy --hash=md5:aaaa",
        "numpy --hash=sha256:aaaa --index-url=https://evil.example",
        "numpy; os_name == '${HOME}' --index-url x",
        "numpy\\\n--index-url https://evil.example/simple",
        "num\x00py",
        "numpy\x0b--index-url x",
        "=1",
    ],
)
def test_everything_but_names_and_versions_is_rejected(line: str) -> None:
    with pytest.raises(RequirementsError, match="Requirement 2 "):
        parse(f"scipy\n{line}")


@pytest.mark.parametrize("name", ["evil.whl", "x.tar.gz", "requirements.txt", "pyproject.toml", "setup.py"])
def test_a_name_is_never_mistaken_for_a_file(name: str) -> None:
    assert "." not in lines(name)[0]


def test_all_invalid_lines_are_named_together() -> None:
    with pytest.raises(RequirementsError) as raised:
        parse("-e .\nscipy\nnumpy ==\n./local")
    assert [line.partition(" is ")[0] for line in str(raised.value).splitlines()] == [
        "Requirement 1",
        "Requirement 3",
        "Requirement 4",
    ]
    with pytest.raises(RequirementsError, match="80 more lines are invalid"):
        parse("-e .\n" * 100)


def test_a_byte_order_mark_is_removed() -> None:
    assert lines("\ufeffsix==1.16.0\n") == ["six==1.16.0"]
    assert parse_conda("\ufeffdependencies: [python=3.11]", "3.11").python == "3.11"


@pytest.mark.parametrize("name", ["0_", "numpy_", "numpy-", "a._-"])
def test_incomplete_names_are_rejected(name: str) -> None:
    with pytest.raises(RequirementsError, match="Requirement 1 is not a package name"):
        parse(name)


def test_a_file_that_is_too_long_is_rejected() -> None:
    with pytest.raises(RequirementsError, match="longer than"):
        parse("#" * 300_000)


@given(st.text(max_size=200))
def test_uv_reads_only_requirements_of_the_index(text: str) -> None:
    try:
        requirements = parse(text)
    except RequirementsError:
        return
    for item in requirements:
        assert "\n" not in item.line
        assert not item.line.startswith("-")
        assert Requirement(item.line.partition(" --hash=")[0]).url is None


def test_a_runtime_adds_only_unlisted_packages() -> None:
    combined, added = combine(parse("scikit_learn==1.5.0\njoblib"), ("numpy", "scikit-learn"))
    assert combined == ["joblib", "numpy", "scikit-learn==1.5.0"]
    assert added == ["numpy"]


def test_order_and_repetition_of_lines_are_irrelevant() -> None:
    assert combine(parse("a\nb\na"), ()) == combine(parse("b\na"), ())


LOCK = """numpy==2.2.6 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
scipy==1.0 \\
    --hash=sha256:cc
"""


def test_hashes_in_the_requirements_narrow_the_lock() -> None:
    assert restrict_hashes(LOCK, parse("numpy==2.2.6 --hash=sha256:BB\nscipy")) == LOCK.replace(
        "    --hash=sha256:aa \\\n", ""
    )
    assert restrict_hashes(LOCK, parse("numpy\nscipy")) == LOCK


def test_hashes_that_match_no_file_are_rejected() -> None:
    with pytest.raises(RequirementsError, match=r"No file of scipy==1\.0"):
        restrict_hashes(LOCK, parse("scipy --hash=sha256:dd"))


CONDA = """
name: project
channels: [defaults]
dependencies:
  - python={python}
  - pip=24
  - pip:
    - scikit-learn==1.7.2
    - numpy  # any
"""


@pytest.mark.parametrize("python", ["3.11", "3.11.5", "=3.11", "3.11.*", "3.11.5=h955ad1f_0"])
def test_the_pip_part_and_the_python_of_a_conda_file_are_read(python: str) -> None:
    environment = parse_conda(CONDA.format(python=python), "3.12")
    assert environment.python == "3.11"
    assert [item.line for item in environment.requirements] == ["scikit-learn==1.7.2", "numpy"]


@pytest.mark.parametrize(
    "item", ["python", "python>=3.9", "python >=3.9,<3.13", "python !=3.10.*", "python~=3.11", "python=3"]
)
def test_a_range_selects_this_servers_python(item: str) -> None:
    assert parse_conda(f"dependencies: ['{item}']", "3.11").python in {"3.11", ""}


@pytest.mark.parametrize("item", ["python>=3.12", "python <3", "python=three", "python=2"])
def test_an_unavailable_python_is_rejected(item: str) -> None:
    with pytest.raises(RequirementsError, match=r"requires python.*3\.11"):
        parse_conda(f"dependencies: ['{item}']", "3.11")


def test_conda_packages_are_rejected_by_name() -> None:
    with pytest.raises(RequirementsError, match=r"numpy=1\.26, conda-forge::scipy.*'pip:' section"):
        parse_conda("dependencies: [python=3.11, numpy=1.26, 'conda-forge::scipy', pip]", "3.11")


@pytest.mark.parametrize(
    "text",
    [
        "just a text",
        "[a, b]",
        "dependencies: numpy",
        "dependencies: [{pip: numpy}]",
        "dependencies: [{pip: [[numpy]]}]",
        "dependencies: [{pip: [numpy], npm: [left-pad]}]",
        "dependencies: [7]",
        "dependencies: [null]",
        "a: [",
        "a: !!python/object/apply:os.system ['true']",
        "{" * 5000,
        "dependencies: [{pip: ['--index-url https://evil.example']}]",
    ],
)
def test_invalid_conda_files_are_rejected(text: str) -> None:
    with pytest.raises(RequirementsError):
        parse_conda(text, "3.11")


def test_an_empty_conda_file_has_no_requirements() -> None:
    environment = parse_conda("", "3.11")
    assert (environment.python, environment.requirements) == ("", [])


def test_a_conda_file_names_what_to_write_instead() -> None:
    text = "dependencies: ['numpy=1.26=py311*', 'conda-forge::pytorch>=2', openssl=3.2, _libgcc_mutex=0.1=main]"
    with pytest.raises(RequirementsError) as raised:
        parse_conda(text, "3.11")
    message = str(raised.value)
    assert "to its 'pip:' section, if the package index has them: numpy==1.26, torch>=2." in message
    assert "doesn't have openssl, _libgcc_mutex, which aren't Python packages: remove them." in message


def test_all_problems_of_a_conda_file_are_named_together() -> None:
    text = "dependencies: [python=2, numpy, {python: 3}, {pip: ['-e .', six, './x']}]"
    with pytest.raises(RequirementsError) as raised:
        parse_conda(text, "3.11")
    lines = str(raised.value).splitlines()
    starts = ["condaEnvFile requires python=2", "condaEnvFile lists 'python: 3'", "Requirement 1", "Requirement 3"]
    assert all(
        line.startswith(start)
        for line, start in zip(lines, [*starts, "condaEnvFile lists conda packages"], strict=True)
    )


def test_an_exported_conda_file_is_explained() -> None:
    items = "".join(f"\n- package{number}=1.0=h{number}_0" for number in range(300))
    with pytest.raises(RequirementsError, match=r"and 280 more.*--from-history"):
        parse_conda(f"dependencies:{items}", "3.11")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("dependencies: [{python: 3.11}]", "'python: 3.11', which YAML reads as a mapping"),
        ("dependencies: ['python >=3.9 <3.12']", "separate the conditions for the version with commas"),
        ("dependencies: ['>=3']", "it has no package name"),
        ("dependencies: [python=3.11, python>=3]", "condaEnvFile lists python twice"),
        ("dependencies: [{pip: ['six', '-e .']}]", "Requirement 2 is an option"),
    ],
)
def test_mistakes_in_conda_files_are_explained(text: str, says: str) -> None:
    with pytest.raises(RequirementsError, match=says):
        parse_conda(text, "3.11")


@pytest.mark.parametrize("text", ["dependencies:", "name: x", "dependencies: [pip, {pip: }]"])
def test_conda_files_without_requirements_are_accepted(text: str) -> None:
    assert parse_conda(text, "3.11").requirements == []
