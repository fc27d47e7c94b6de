"""Ends a run in the midst of its training."""

import os
import signal

from transformers import TrainerCallback


class Killed(BaseException):
    """Like SIGKILL: nothing in the library may catch it."""


class KillAt(TrainerCallback):
    """Raises `Killed` at one event of one step."""

    def __init__(self, step, event="on_step_end"):
        setattr(self, event, self._kill)
        self._step = step

    def _kill(self, args, state, control, **kwargs):
        if state.global_step == self._step:
            raise Killed


def die():
    """SIGKILL to this process; all processes of a run call it at the same point, as when a machine goes away."""
    os.kill(os.getpid(), signal.SIGKILL)


class Kill(TrainerCallback):
    """SIGKILL at the end of one step, to all processes or to one."""

    def __init__(self, step, process=None):
        self.step, self.process = step, process

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step and self.process in (None, args.process_index):
            die()
