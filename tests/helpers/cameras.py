"""A live source under the control of a test."""

import queue
import time
from types import SimpleNamespace

import numpy as np

from masktrack_jax.video.live import LiveSource

NO_SIGNAL = SimpleNamespace(signal=None)  # an `Interruption` without a signal


class Camera:
    """Yields a frame each time the test gives one; frame i has the value i % 256 in every pixel.

    asked: how many frames the reader has requested.
    """

    def __init__(self):
        self.asked, self._commands = 0, queue.Queue()

    def give(self, count=1):
        """Let the reader have more frames."""
        for _ in range(count):
            self._commands.put("frame")

    def end(self, how="end"):
        """End, or fail with any other word as the reason."""
        self._commands.put(how)

    def __iter__(self):
        index = 0
        while True:
            self.asked += 1
            command = self._commands.get()
            if command == "frame":
                yield np.full((90, 150, 3), index % 256, np.uint8)
                index += 1
            elif command == "end":
                return
            else:
                raise OSError(5, command)


def wait_until(condition):
    """Wait until `condition()` is true; fail after a minute: a busy machine may take seconds."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def started(drop):
    """A camera that has given one frame, and its `LiveSource`."""
    camera = Camera()
    camera.give()
    return camera, LiveSource("camera", iter(camera), 10.0, drop)
