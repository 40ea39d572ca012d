"""The parity alarm."""

from types import SimpleNamespace

import pytest

from sgrl.errors import SgrlError
from sgrl.training.callbacks import LOGP_DIFFERENCE, ParityAlarm, ParityError


def log(alarm, step, difference):
    alarm.on_log(None, SimpleNamespace(global_step=step), None, logs={LOGP_DIFFERENCE: difference})


def started(start=0, **settings):
    alarm = ParityAlarm(**settings)
    alarm.on_train_begin(None, SimpleNamespace(global_step=start), None)
    return alarm


def test_rings_once_and_names_the_causes(caplog):
    alarm = started()
    log(alarm, 1, 0.049)
    assert not alarm.rang
    log(alarm, 2, 0.3)
    log(alarm, 3, 0.3)
    assert caplog.text.count("vLLM and the trainer disagree") == 1
    assert "= 0.3 at step 2, expected at most 0.05" in caplog.text and "pixel budget" in caplog.text


def test_nan_rings():
    alarm = started()
    log(alarm, 1, float("nan"))
    assert alarm.rang


def test_error_by_setting():
    with pytest.raises(ParityError, match="at step 1"):
        log(started(action="error", threshold=0.01), 1, 0.02)


def test_watches_the_first_steps_after_a_start_or_a_resume():
    alarm = started(start=100, steps=5)
    log(alarm, 106, 1.0)
    alarm.on_log(None, SimpleNamespace(global_step=101), None, logs={"loss": 1.0})
    assert not alarm.rang
    log(alarm, 105, 1.0)
    assert alarm.rang


def test_unknown_action():
    with pytest.raises(SgrlError, match="unknown parity_action: 'eror'; did you mean 'error'"):
        ParityAlarm(action="eror")
