"""A step recorded once as a CUDA graph and replayed: a thin network's hundreds of kernels are started by one call instead of as many.

Replayed are all steps, the first too, so that a run that was stopped and goes on repeats the bits of one that was not: what it takes to
warm up and to record leaves weights, running statistics and momentum as they were. Only what the step does on the device is in the graph;
batches and learning rates are copied in.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_NUM_WARM_STEPS = (
    3  # libraries are loaded, workspaces taken and a compiled network compiled in them
)

Step = Callable[[Tensor, Tensor], Tensor]


class Replay:
    """`step` (x, y) -> sums, which updates `model` by `optimizer`, replayed for batches of the shape of the first.

    The sums are those of the last call until the next one overwrites them. The optimizer's state must begin as zeros, as momentum does.
    """

    def __init__(self, step: Step, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self._step, self._model, self._optimizer = step, model, optimizer
        self._graph: torch.cuda.CUDAGraph | None = None
        self._x = self._y = self._sums = torch.empty(0)
        self._rates: list[Tensor] = []
        self._copied: list[float] = []

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        if self._graph is None:
            self._record(x, y)
        if x.shape != self._x.shape:
            raise ValueError(
                f"a batch of shape {tuple(x.shape)} cannot be trained on by a step recorded for {tuple(self._x.shape)}"
            )
        self._x.copy_(x)
        self._y.copy_(y)
        self._copy_rates()
        assert self._graph is not None
        self._graph.replay()
        return self._sums

    def _copy_rates(self) -> None:
        rates = [float(group["lr"]) for group in self._optimizer.param_groups]
        for tensor, rate, copied in zip(self._rates, rates, self._copied, strict=True):
            if rate != copied:
                tensor.fill_(rate)
        self._copied = rates

    def _record(self, x: Tensor, y: Tensor) -> None:
        self._x, self._y = x.clone(), y.clone()
        # float32, which is what fused kernels read
        self._rates = [
            torch.zeros((), dtype=torch.float32, device=x.device)
            for _ in self._optimizer.param_groups
        ]
        self._copied = [0.0 for _ in self._rates]
        stream = torch.cuda.Stream(x.device)  # type: ignore[no-untyped-call]  # torch's stub lacks it
        with _kept(self._model, self._optimizer), _rates_on_device(self._optimizer, self._rates):
            stream.wait_stream(torch.cuda.current_stream(x.device))  # for what is kept, too
            with torch.cuda.stream(stream):
                for _ in range(_NUM_WARM_STEPS):
                    self._step(self._x, self._y)
            torch.cuda.current_stream(x.device).wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            # thread_local: threads that read pictures may pin memory meanwhile
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                self._sums = self._step(self._x, self._y)
            self._graph = graph


@contextmanager
def _rates_on_device(optimizer: torch.optim.Optimizer, rates: list[Tensor]) -> Iterator[None]:
    """The learning rates of the groups as tensors, which a graph reads anew at every replay."""
    before = [group["lr"] for group in optimizer.param_groups]
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    try:
        yield
    finally:
        for group, rate in zip(optimizer.param_groups, before, strict=True):
            group["lr"] = rate


@contextmanager
def _kept(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Afterwards the tensors of model and optimizer are what they were, the same tensors; state that was not there is zero."""
    ours = [*model.parameters(), *model.buffers(), *_state(optimizer)]
    before = [tensor.detach().clone() for tensor in ours]
    known = {id(tensor) for tensor in ours}
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(ours, before, strict=True):
                tensor.copy_(value)
            for tensor in _state(optimizer):
                if id(tensor) not in known:
                    tensor.zero_()


def _state(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [
        value
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, Tensor)
    ]
