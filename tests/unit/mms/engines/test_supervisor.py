"""mms.engines.process.supervisor repeats numbers, names and texts of supervisor; they match the installed version."""

import inspect
import re
import signal

import pytest
from supervisor import process
from supervisor.options import decode_wait_status
from supervisor.rpcinterface import SupervisorNamespaceRPCInterface
from supervisor.states import ProcessStates
from supervisor.xmlrpc import Faults

from mms.engines.process.engine import INIT_FAILED
from mms.engines.process.supervisor import EXIT_LINE, FaultCode, State
from mms.scoring import settings as scoring_settings


def test_states_have_the_numbers_of_supervisor() -> None:
    numbers = {name: number for name, number in vars(ProcessStates).items() if name.isupper()}
    assert {state.name: state.value for state in State} == numbers


@pytest.mark.parametrize("fault", FaultCode)
def test_faults_have_the_numbers_of_supervisor(fault: FaultCode) -> None:
    assert getattr(Faults, fault.name) == fault.value


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("reloadConfig", []),
        ("addProcessGroup", ["name"]),
        ("removeProcessGroup", ["name"]),
        ("startProcess", ["name", "wait"]),
        ("stopProcess", ["name", "wait"]),
        ("getProcessInfo", ["name"]),
        ("getAllProcessInfo", []),
        ("readLog", ["offset", "length"]),
    ],
)
def test_methods_take_the_parameters_that_are_sent(method: str, parameters: list[str]) -> None:
    signature = inspect.signature(getattr(SupervisorNamespaceRPCInterface, method))
    assert list(signature.parameters)[1:] == parameters


def test_the_log_has_the_line_from_which_an_exit_is_read() -> None:
    source = inspect.getsource(process.Subprocess.finish)
    assert source.count('msg = "exited: %s (%s)" % (processname, msg + "') == 3  # too quickly, expected, not expected
    line = "2026-11-27 04:00:00,000 WARN exited: mms-1 (exit status 3; not expected)"
    assert re.findall(EXIT_LINE.format(name="mms-1"), line) == ["exit status 3"]


def test_the_words_for_an_exit_are_those_that_the_engine_compares() -> None:
    assert decode_wait_status(scoring_settings.INIT_FAILED << 8) == (scoring_settings.INIT_FAILED, INIT_FAILED)
    assert decode_wait_status(signal.SIGKILL)[1].startswith("terminated by SIGKILL")


def test_the_information_on_a_program_has_the_fields_that_are_read() -> None:
    source = inspect.getsource(SupervisorNamespaceRPCInterface.getProcessInfo)
    for name in ("name", "group", "state", "start", "now", "pid"):
        assert f"'{name}':" in source
