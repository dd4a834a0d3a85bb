"""Drivers that can't work are rejected before the build; all others are accepted."""

import json

import pytest

from mms.images.plan.driver import DriverError, check_source, script_paths

WORKS = "def init():\n    pass\n\n\ndef run(body):\n    return body\n"


@pytest.mark.parametrize(
    ("asset_id", "url", "paths"),
    [
        ("score", "http://h/score.py?key=1", ["score.py"]),
        ("driver", "http://h/score.py", ["driver.py", "score.py"]),
        ("score.py", "http://h/abc123", ["score.py", "abc123"]),
        ("score.v2", "http://h/score.py", ["score.py", "score.v2"]),
        ("score", "http://h/raw", ["score.py", "score", "raw"]),
        ("score", "http://h/", ["score.py", "score"]),
        ("score", "http://h/SCORE.PY", ["score.py", "score.PY", "SCORE.PY"]),
        ("score", "http://h/mon%20mod%C3%A8le.py", ["score.py", "mon modèle.py"]),
    ],
)
def test_the_first_path_of_a_driver_can_be_imported(asset_id: str, url: str, paths: list[str]) -> None:
    assert [str(path) for path in script_paths(asset_id, url)] == paths


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("score.txt", "is the file 'score.txt'"),
        ("score.R", "is the file 'score.R'"),
        ("model.pkl", "is the file 'model.pkl'"),
        ("score.ipynb", r"is a Jupyter notebook \(score.ipynb\)"),
    ],
)
def test_other_files_than_scripts_are_rejected_by_name(name: str, says: str) -> None:
    with pytest.raises(DriverError, match=says):
        script_paths("score", f"http://h/{name}?key=1")


@pytest.mark.parametrize(
    "source",
    [
        WORKS,
        WORKS.replace("def run", "async def run"),
        "from company.scoring import *\n",
        "from company.scoring import init, predict as run\n",
        "import run, init.first\n",
        "init = run = lambda *_: None\n",
        "init, (run, other) = make()\n",
        "run: object = print\ninit: object = print\n",
        "import functools\n\n@functools.cache\ndef init(): ...\n\n@other\nclass run: ...\n",
        "try:\n    from a import run\nexcept ImportError:\n    def run(body): ...\nif True:\n    def init(): ...\n",
        "if __name__ == '__main__':\n    pass\nelse:\n    init = run = print\n",
        "for run in (print,):\n    with open as init:\n        pass\n",
        "match print:\n    case run:\n        init = run\n",
        "if (init := print) and (run := print):\n    pass\n",
        "def set_up():\n    global init, run\n    init = run = print\nset_up()\n",
        "[(run := x, init := x) for x in (print,)]\n",
        "globals().update(init=print, run=print)\n",
        "def __getattr__(name):\n    return print\n",
        "import sys\nsetattr(sys.modules[__name__], 'run', print)\n",
        "exec('init = run = print')\n",
    ],
)
def test_every_way_to_define_the_functions_is_accepted(source: str) -> None:
    check_source(source.encode(), "score.py")


@pytest.mark.parametrize(
    "source",
    [
        "\ufeff".encode() + WORKS.encode(),
        b"# -*- coding: latin-1 -*-\nname = '\xe8'\n" + WORKS.encode(),
        b"#!/usr/bin/env python\n# vim: set fileencoding=cp1252 :\nname = '\x80'\n" + WORKS.encode(),
        WORKS.replace("\n", "\r\n").encode(),
    ],
)
def test_encodings_that_python_reads_are_accepted(source: bytes) -> None:
    check_source(source, "score.py")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (b"", r"no function init\(\) and run\(\) at its top level\. Define"),
        (b"def init(): ...", r"no function run\(\)"),
        (b"def run(body): ...", r"no function init\(\)"),
        (b"def init():\n    def run(): ...", r"no function run\(\)"),
        (b"class Model:\n    def init(self): ...\n    def run(self): ...", r"only methods of the class Model"),
        (b"init = [run for run in ()]", r"no function run\(\)"),
        (b"if __name__ == '__main__':\n    def init(): ...\n    def run(): ...", r"no function init\(\) and run\(\)"),
        (b"def init(): ...\n# def run(): ...", r"no function run\(\)"),
        (b"def run(body)\n    pass", "is not valid Python in line 1: expected ':'"),
        (b"%matplotlib inline\n", "is not valid Python in line 1"),
        (b"return 1\n", "is not valid Python in line 1: 'return' outside function"),
        (b"name = '\xe8'\n", "isn't UTF-8 text"),
        (b"# coding: klingon\n", "is not valid Python"),
        (WORKS.encode("utf-16"), "is not valid Python|isn't UTF-8 text"),
        (b"x = 1\0", "is not valid Python"),
        (json.dumps({"cells": [], "nbformat": 4}).encode(), "is a Jupyter notebook"),
        (json.dumps({"cells": [], "nbformat": 4}).encode("utf-8-sig"), "is a Jupyter notebook"),
    ],
)
def test_a_driver_that_cannot_work_is_rejected_with_the_reason(source: bytes, says: str) -> None:
    with pytest.raises(DriverError, match=says):
        check_source(source, "score.py")


def test_new_syntax_is_accepted_for_another_python() -> None:
    check_source(b"def run(body)\n    pass", "score.py", is_host_python=False)
    with pytest.raises(DriverError, match="no function"):
        check_source(b"", "score.py", is_host_python=False)
