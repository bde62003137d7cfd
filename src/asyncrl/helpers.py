"""Threads that share a piece of work with their caller, again and again."""

import threading
import weakref
from collections.abc import Callable, Sequence
from queue import SimpleQueue

import torch

Task = Callable[[], None]
Done = SimpleQueue[BaseException | None]


class Helpers:
    """Threads that wait for tasks; each always gets those of its place, so that its caches hold what they need.

    They end with this object. (Those of concurrent.futures end as soon as the main thread does, in which nobody need
    train.)

    Args:
        count: of threads, besides the caller's.
    """

    def __init__(self, count: int) -> None:
        self._queues: list[SimpleQueue[tuple[Task, Done] | None]] = [SimpleQueue() for _ in range(count)]
        for tasks in self._queues:
            threading.Thread(target=_serve, args=(tasks,), name="asyncrl-helper", daemon=True).start()
        weakref.finalize(self, _end, self._queues)

    def run(self, tasks: Sequence[Task]) -> None:
        """Do the first task here and meanwhile the others, at most as many as there are threads; wait for all.

        Raises:
            BaseException: what the first of those that failed has raised.
            ValueError: if there are too many.
        """
        if len(tasks) > 1 + len(self._queues):
            raise ValueError(f"{len(tasks)} tasks for {1 + len(self._queues)} threads")
        done: Done = SimpleQueue()  # a new one: of tasks whose caller was interrupted there may be more to come
        for queue, task in zip(self._queues, tasks[1:], strict=False):
            queue.put((task, done))
        try:
            tasks[0]()
        finally:
            errors = [done.get() for _ in tasks[1:]]
        for error in errors:
            if error is not None:
                raise error


def _serve(queue: "SimpleQueue[tuple[Task, Done] | None]") -> None:
    torch.set_flush_denormal(True)  # as whoever trains does; it counts for one thread
    while (given := queue.get()) is not None:
        task, done = given
        error = None
        try:
            task()
        except BaseException as raised:
            error = raised
        del given, task  # which hold what they work on
        done.put(error)
        error = None  # whose traceback holds it too


def _end(queues: "list[SimpleQueue[tuple[Task, Done] | None]]") -> None:
    for queue in queues:
        queue.put(None)
