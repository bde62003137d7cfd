"""Threads that share a piece of work with their caller."""

import gc
import subprocess
import sys
import threading

import pytest

from asyncrl.helpers import Helpers


def test_each_task_runs_once_in_a_thread_of_its_place():
    helpers, ran = Helpers(2), [[], [], []]
    for _ in range(3):
        helpers.run([lambda place=place: ran[place].append(threading.get_ident()) for place in range(3)])
    assert [len(times) for times in ran] == [3, 3, 3]
    assert [len(set(times)) for times in ran] == [1, 1, 1]
    assert ran[0][0] == threading.get_ident() and len({times[0] for times in ran}) == 3


def test_fewer_tasks_than_threads():
    helpers, ran = Helpers(3), []
    helpers.run([lambda: ran.append(1)])
    helpers.run([lambda: ran.append(2), lambda: ran.append(2)])
    assert ran == [1, 2, 2]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_who_fails_is_told_when_all_have_ended(place):
    def fail():
        raise OverflowError(place)

    def succeed():
        assert may_end.wait(60)
        ran.append(1)

    helpers, ran, may_end = Helpers(2), [], threading.Event()
    tasks = [succeed for _ in range(3)]
    tasks[place] = fail
    threading.Timer(0.2, may_end.set).start()
    with pytest.raises(OverflowError, match=str(place)):
        helpers.run(tasks)
    assert ran == [1, 1]
    helpers.run([lambda: ran.append(2) for _ in range(3)])  # and they go on
    assert ran == [1, 1, 2, 2, 2]


def test_more_tasks_than_threads_are_refused():
    with pytest.raises(ValueError, match="3 tasks for 2 threads"):
        Helpers(1).run([lambda: None] * 3)


class Owner:
    """Has helpers, and work that fails."""

    def __init__(self):
        self.helpers = Helpers(1)

    def work(self):
        self.helpers.run([lambda: None, self._fail])

    def _fail(self):
        raise OverflowError


def test_they_end_with_their_owner_though_work_has_failed():
    before = set(threading.enumerate())
    owner = Owner()
    with pytest.raises(OverflowError):
        owner.work()
    (helper,) = set(threading.enumerate()) - before
    del owner
    gc.collect()
    helper.join(60)
    assert not helper.is_alive()


SCRIPT = """
import threading, time
from asyncrl.helpers import Helpers

def train():
    helpers = Helpers(1)
    threading.main_thread().join()
    helpers.run([lambda: None, lambda: print("went on", flush=True)])

threading.Thread(target=train).start()
"""


def test_they_work_for_a_thread_that_outlives_the_main_one():
    ended = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=300, check=True)
    assert ended.stdout == "went on\n"
