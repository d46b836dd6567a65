"""End a training in the middle, as SIGKILL would, but within this process.

Other processes import this module by name too.
"""

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from reslearn.train import loop
from reslearn.train.loop import Log, LoopSetup
from reslearn.train.step import State


class Killed(BaseException):
    """Ends a training where it is."""


def until_killed(num_steps: int) -> Callable[[LoopSetup, State, Log], None]:
    """Return a stand-in for `loop.train` that makes `num_steps` steps and then raises Killed.

    The last of these steps is logged, evaluated and saved like any other.
    """

    def train(setup: LoopSetup, state: State, log: Log) -> None:
        count = 0

        def step(x: Tensor, y: Tensor) -> Tensor:
            nonlocal count
            if count == num_steps:
                raise Killed
            count += 1
            return setup.step(x, y)

        loop.train(replace(setup, step=step), state, log)
        if count == num_steps:
            raise Killed

    return train
