"""A training that ends where it is, as by SIGKILL, but in this process. Imported by name, by other processes too."""

from collections.abc import Callable, Iterator
from typing import Any

from reslearn.train import loop


class Killed(BaseException):
    """Ends a training where it is."""


def until_killed(num_steps: int) -> Callable[..., Iterator[Any]]:
    """What stands in for `loop.train_steps`: so many steps, then Killed."""

    def train_steps(*arguments: Any, **options: Any) -> Iterator[Any]:
        for number, reading in enumerate(loop.train_steps(*arguments, **options), 1):
            yield reading
            if number == num_steps:
                raise Killed

    return train_steps
