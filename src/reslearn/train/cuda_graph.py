"""Record a training step once as a CUDA graph and replay it.

A thin network launches hundreds of kernels per step. A replay launches all of them by one call.
Every step is replayed, including the first, so a resumed run is bit-identical to an uninterrupted
one. For that, warming up and recording leave weights, running statistics and momentum unchanged.
The graph holds only what the step does on the device; batches and learning rates are copied into
it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

# They load libraries, allocate workspaces and compile a network that is to be compiled.
_NUM_WARM_UP_STEPS = 3

Step = Callable[[Tensor, Tensor], Tensor]


class Replay:
    """A step that is recorded at its first call and replayed at every call.

    Each call overwrites the totals that the call before returned.

    Args:
        step: Maps a batch (x, y) to its totals and updates `model` by `optimizer`.
        model: The network that trains.
        optimizer: Its state must begin as zeros, as momentum does.
    """

    def __init__(self, step: Step, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self._step, self._model, self._optimizer = step, model, optimizer
        self._graph: torch.cuda.CUDAGraph | None = None
        self._x = self._y = self._totals = torch.empty(0)
        self._rates: list[Tensor] = []  # one per parameter group, on the device
        self._copied_rates: list[float] = []

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        if self._graph is None:
            self._graph = self._record(x, y)
        if x.shape != self._x.shape:
            raise ValueError(
                f"the recorded step needs batches of shape {tuple(self._x.shape)}, "
                f"not {tuple(x.shape)}: make all batches equally large"
            )
        self._x.copy_(x)
        self._y.copy_(y)
        self._copy_rates()
        self._graph.replay()
        return self._totals

    def _copy_rates(self) -> None:
        rates = [float(group["lr"]) for group in self._optimizer.param_groups]
        for tensor, rate, copied_rate in zip(self._rates, rates, self._copied_rates, strict=True):
            if rate != copied_rate:
                tensor.fill_(rate)
        self._copied_rates = rates

    def _record(self, x: Tensor, y: Tensor) -> torch.cuda.CUDAGraph:
        device = x.device
        self._x, self._y = x.clone(), y.clone()
        # Fused kernels read learning rates in float32.
        self._rates = [
            torch.zeros((), dtype=torch.float32, device=device)
            for _ in self._optimizer.param_groups
        ]
        self._copied_rates = [0.0 for _ in self._rates]
        # torch's stub lacks the constructor.
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        with (
            preserved(self._model, self._optimizer),
            learning_rates_on_device(self._optimizer, self._rates),
        ):
            # Also waits for the copies that `preserved` made.
            stream.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(stream):
                for _ in range(_NUM_WARM_UP_STEPS):
                    self._step(self._x, self._y)
            torch.cuda.current_stream(device).wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            # thread_local: threads that read images may pin memory during the recording.
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                self._totals = self._step(self._x, self._y)
        return graph


@contextmanager
def learning_rates_on_device(
    optimizer: torch.optim.Optimizer, rates: list[Tensor]
) -> Iterator[None]:
    """Replace the learning rates of all groups by tensors, which a graph reads at every replay."""
    numbers = [group["lr"] for group in optimizer.param_groups]
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    try:
        yield
    finally:
        for group, number in zip(optimizer.param_groups, numbers, strict=True):
            group["lr"] = number


@contextmanager
def preserved(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Restore the tensors of model and optimizer at the end, in place.

    Optimizer state that did not exist before becomes zero.
    """
    tensors = [*model.parameters(), *model.buffers(), *_state_tensors(optimizer)]
    copies = [tensor.detach().clone() for tensor in tensors]
    identities = {id(tensor) for tensor in tensors}
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, copy in zip(tensors, copies, strict=True):
                tensor.copy_(copy)
            for tensor in _state_tensors(optimizer):
                if id(tensor) not in identities:
                    tensor.zero_()


def _state_tensors(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    tensors: list[Tensor] = []
    for state in optimizer.state.values():
        tensors += [value for value in state.values() if isinstance(value, Tensor)]
    return tensors
