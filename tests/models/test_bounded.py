"""Programs that do not end, ended on whatever thread they run; and chat templates that loop only for some chats."""

import gc
import os
import threading
import time
from types import SimpleNamespace

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from sgrl.errors import SgrlError
from sgrl.models.vlm import bounded, template
from sgrl.models.vlm.bounded import TooLong, within


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(bounded, "LOOKS", 0.02)
    monkeypatch.setattr(template, "LATER_SECONDS", 0.1)


def loop():
    while True:
        pass


def test_a_loop_is_ended_and_what_follows_runs():
    for _ in range(2):
        with pytest.raises(TooLong), within(0.05):
            loop()
    with within(60):
        assert sum(range(1000)) == 499500


def test_on_another_thread_too():
    raised = []

    def work():
        try:
            with within(0.05):
                loop()
        except TooLong:
            raised.append(threading.get_ident())

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(raised)) == len(raised) == 3 and threading.get_ident() not in raised and not bounded._running


def test_a_block_within_a_block_and_one_that_waits():
    with within(0.05):
        time.sleep(0.2)  # takes no processor time
        with within(60):
            pass
    with pytest.raises(TooLong), within(0.05), within(60):
        loop()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_in_a_copy_of_the_process():
    with within(1):
        pass
    child = os.fork()
    if child == 0:
        try:
            with within(0.05):
                loop()
        except TooLong:
            os._exit(7)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_a_template_that_loops_for_some_chats():
    source = (
        "{% if messages|length > 1 %}{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    )
    compiled = ImmutableSandboxedEnvironment().from_string(source + "{% endif %}{{ messages[0]['content'] }}")

    def apply_chat_template(messages, **_):
        return compiled.render(messages=messages)

    processor = SimpleNamespace(apply_chat_template=apply_chat_template)
    chat = [{"role": "user", "content": "hello"}]
    assert template.render(processor, chat) == "hello"
    with pytest.raises(SgrlError, match="the model's chat template fails: it does not end within 0.1 s"):
        template.render(processor, chat * 2)
    assert template.render(processor, chat) == "hello"
    gc.collect()
