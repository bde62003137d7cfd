"""One TORCS host process: starting it, asking it, noticing when it is dead or hung, ending it.

A host serves one environment. Its owner is the `Host` object: the process ends with `close`, when the object is
collected, when Python exits, and (by its own watch, see driver.cpp) within a second of a Python that was killed.
"""

import os
import select
import signal
import struct
import subprocess
import time
import weakref
from collections import deque
from typing import NamedTuple

from asyncrl.envs.torcs.build import DATA_FOLDER, DRIVER_FOLDER, LIBRARY_FOLDER, build_host
from asyncrl.envs.torcs.catalog import Opponent

START_SECONDS = 120.0  # wall-clock limit for loading; takes 1 s alone and more where many start at once
_GRACE_SECONDS = 2.0
_TAIL_LINES = 12
_PROTOCOL = 0x54524301
_REQUEST = struct.Struct("<Ii5fIi")
_HELLO = struct.Struct("<IIff64s")
_REPLY = struct.Struct("<18f4i2dI")
_RESET, _STEP, _VIEW = (ord(letter) for letter in "RSV")
# Software rendering in the calling thread: the same pixels on every machine, and one core per environment. Nothing
# else of the user's environment can change the picture, and Mesa writes no shader cache.
_ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "LIBGL_ALWAYS_SOFTWARE": "1",
    "LP_NUM_THREADS": "0",
    "MESA_SHADER_CACHE_DISABLE": "true",
    "__EGL_VENDOR_LIBRARY_FILENAMES": "/usr/share/glvnd/egl_vendor.d/50_mesa.json",
}


class HostError(RuntimeError):
    """The TORCS host died, hung or said nonsense; the message ends with what it printed last."""


class CarState(NamedTuple):
    """What the host tells of the agent's car; layout shared with world.h."""

    speed_x: float  # m/s along the car
    speed_y: float  # m/s to the car's left
    angle: float  # rad from the car's heading to the road's axis; positive: the axis is to the left
    to_middle: float  # m left of the road's middle
    width: float  # m, of the road here
    along: float  # m/s along the road's axis at the car, now
    mean_along: float  # m/s, the same averaged over the step
    engine: float  # rad/s
    red_line: float  # rad/s
    fuel: float  # litres
    turn_10: float  # rad the axis turns over the next 10 m; positive: to the left
    turn_20: float
    turn_40: float
    turn_80: float
    turn_160: float
    gap_ahead: float  # m along the axis to the next car ahead, at most 100
    gap_left: float  # m that car is left of ours
    lap_position: float  # m from the start line
    gear: int  # -1 reverse, 0 neutral
    damage: int  # TORCS' points; the car falls apart at 10,000
    race_position: int  # 1 leads
    state: int  # TORCS' flags; those in 0xff mean that the car is out of the race
    seconds: float  # of race since the reset
    distance: float  # m along the road's axis since the reset

    @property
    def track_pos(self) -> float:
        """Position across the road: 1 is the left edge, -1 the right."""
        return 2.0 * self.to_middle / self.width


class Host:
    """A running host with one track and a field of cars.

    Args:
        track: "category/name".
        car: the agent's.
        opponents: the other cars.
        graphics: whether pictures can be asked for.
        size: height and width of a picture, in pixels.
        view_scale: how many times as large the pictures of `view` are; 0 if never asked for.
        damage: whether collisions damage the agent's car.
        traction_control: whether the agent's car keeps its driven wheels from spinning.
        timeout_seconds: wall-clock limit for one answer.

    Raises:
        HostError: if it does not start.
        UserError: if it cannot be built.
    """

    def __init__(
        self,
        track: str,
        car: str,
        opponents: tuple[Opponent, ...] = (),
        *,
        graphics: bool = True,
        size: tuple[int, int] = (84, 84),
        view_scale: int = 0,
        damage: bool = True,
        traction_control: bool = True,
        timeout_seconds: float = 30.0,
    ) -> None:
        command = [
            str(build_host()), f"local={DRIVER_FOLDER}/local/", f"library={LIBRARY_FOLDER}/", f"data={DATA_FOLDER}/",
            f"track={track}", f"car={car}", f"skill={3 if damage else 0}", f"graphics={int(graphics)}",
            f"traction_control={int(traction_control)}",
            f"height={size[0]}", f"width={size[1]}", f"view_scale={view_scale}", f"parent={os.getpid()}",
            *(f"opponent={each.module}:{each.number}" + (f":{each.car}" if each.car else "") for each in opponents),
        ]  # fmt: skip
        self.timeout_seconds = timeout_seconds
        self._size, self._view_scale = size, view_scale
        self._tail: deque[bytes] = deque(maxlen=_TAIL_LINES)
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, bufsize=0, stdin=pipe, stdout=pipe, stderr=pipe, env=_ENVIRONMENT)
        self._end = weakref.finalize(self, _end_process, self._process, os.getpid())
        assert self._process.stdin and self._process.stdout and self._process.stderr
        self._requests, self._replies, self._errors = self._process.stdin, self._process.stdout, self._process.stderr
        self._poll = select.poll()
        self._poll.register(self._replies, select.POLLIN)
        self._poll.register(self._errors, select.POLLIN)
        try:
            self._read_hello()
        except HostError:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def reset(self, start_metres: float, lateral: float, seed: int, *, draw: bool) -> tuple[CarState, bytes]:
        """Put the cars at `start_metres` from the line; `lateral` is the agent's `track_pos`."""
        return self._ask(_REQUEST.pack(_RESET, 0, 0.0, 0.0, 0.0, start_metres, lateral, seed, draw))

    def step(self, physics_steps: int, controls: tuple[float, float, float], *, draw: bool) -> tuple[CarState, bytes]:
        """Drive `physics_steps` of 2 ms under `controls`: steer (1 is left), accelerator, brake."""
        return self._ask(_REQUEST.pack(_STEP, physics_steps, *controls, 0.0, 0.0, 0, draw))

    def view(self) -> bytes:
        """Return the large picture of the present moment; changes nothing."""
        return self._ask(_REQUEST.pack(_VIEW, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 1))[1]

    def resident_bytes(self) -> int:
        """Return the memory that the process holds; 0 if it is gone."""
        try:
            with open(f"/proc/{self.pid}/statm") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except OSError:
            return 0

    def close(self) -> None:
        """End the process. May be called more than once."""
        self._end()

    def _read_hello(self) -> None:
        protocol, reply_bytes, length, width, name = _HELLO.unpack(self._read(_HELLO.size, START_SECONDS))
        if (protocol, reply_bytes) != (_PROTOCOL, _REPLY.size):
            raise self._failure("speaks another protocol")
        self.track_length, self.track_width = length, width  # metres
        self.track_name = name.rstrip(b"\0").decode("latin-1")

    def _ask(self, request: bytes) -> tuple[CarState, bytes]:
        try:
            self._send(request)
            *values, picture_bytes = _REPLY.unpack(self._read(_REPLY.size, self.timeout_seconds))
            return CarState(*values), self._read(picture_bytes, self.timeout_seconds)
        except BaseException:  # Ctrl-C too: a reply that nobody took would be taken for that to the next request
            self._process.kill()
            raise

    def _send(self, request: bytes) -> None:
        try:
            self._requests.write(request)
        except (OSError, ValueError):  # ValueError: closed
            raise self._failure(self._how_it_ended()) from None

    def _read(self, size: int, timeout_seconds: float) -> bytes:
        """Read exactly `size` bytes. Never blocks longer than the limit; the host's messages are drained meanwhile."""
        buffer = bytearray(size)
        view, done = memoryview(buffer), 0
        deadline = time.monotonic() + timeout_seconds
        while done < size:
            self._wait(deadline, timeout_seconds)
            got = os.readv(self._replies.fileno(), [view[done:]])
            if got == 0:
                raise self._failure(self._how_it_ended())
            done += got
        return bytes(buffer)

    def _wait(self, deadline: float, timeout_seconds: float) -> None:
        """Return once a reply can be read."""
        while True:
            events = self._poll.poll(1000 * max(0.0, deadline - time.monotonic()))
            if not events:
                # The clock also ran while Python itself was stopped (Ctrl-Z): ask once more before giving up.
                events = self._poll.poll(1000 * _GRACE_SECONDS)
            if not events:
                raise self._failure(f"did not answer within {timeout_seconds:g} seconds")
            ready = {number for number, _ in events}
            if self._errors.fileno() in ready:
                self._drain()
            if self._replies.fileno() in ready:
                return

    def _drain(self) -> None:
        text = self._errors.read(65536)
        if not text:
            self._poll.unregister(self._errors)  # closed: it would be ready for ever
        else:
            self._tail.extend(text.splitlines())

    def _how_it_ended(self) -> str:
        try:
            code = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            return "closed its pipe"
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"

    def _failure(self, what: str) -> HostError:
        while self._errors.fileno() in {number for number, _ in self._poll.poll(0)}:
            self._drain()
        tail = "\n".join(f"  {line.decode('utf-8', 'replace')}" for line in self._tail)
        return HostError(f"the TORCS host {what}" + (f"; its last words:\n{tail}" if tail else ""))


def _end_process(process: subprocess.Popen, owner: int) -> None:
    """Kill and reap the host: it has nothing to save. A forked copy of the owner only lets go of the pipes."""
    if os.getpid() == owner:
        process.kill()
        process.wait()
    else:
        process.returncode = 0
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream:
            stream.close()
