"""One network trained by many processes, as torchrun starts them.

Each process takes its share of every batch. Gradients and sums are added in the order of the
processes, never in the order of their arrival or of a ring. N processes therefore make the same
bits as one process that passes a batch in N parts (`train.accumulate`). A resumed run repeats the
bits of an unbroken one. Process 0 alone writes.

Paper: two GPUs, with batch norm on each separately (Sec. 4.2).
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NoReturn, TypeVar, final

import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")
Forward = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@final
class OneProcess:
    """The neutral counterpart of `ManyProcesses`: sums over one process, and no communication."""

    rank, count, is_first, launcher = 0, 1, True, ""

    def sum(self, values: Tensor) -> Tensor:
        """Return `values` unchanged, for one process."""
        return values

    def gather(self, values: Tensor) -> Tensor:
        """Add a leading axis: [...] -> [1, ...]."""
        return values[None]

    def maximum(self, values: list[int]) -> list[int]:
        """Return `values` unchanged, for one process."""
        return values

    def broadcast(self, value: T) -> T:
        """Return `value` unchanged, for one process."""
        return value

    def collect(self, value: T) -> list[T]:
        """Return `value` alone, for one process."""
        return [value]

    def run_together(self, work: Callable[[], T]) -> T:
        """Call `work` and return its result."""
        return work()

    def share_gradients(
        self, model: nn.Module, forward: Forward
    ) -> tuple[Forward, Callable[[], AbstractContextManager[object]]]:
        """Return `forward` unchanged, and an empty context."""
        return forward, nullcontext

    def broadcast_buffers(self, network: nn.Module) -> None:
        """Do nothing: there is no other process."""

    def exit_unless_first(self, exit_status: int) -> None:
        """Do nothing: this is the first process."""


@final
class ManyProcesses:
    """This process among those that torchrun started.

    All processes must call every method, in the same order, except `leave` and `exit_unless_first`.
    """

    def __init__(self) -> None:
        self.rank, self.count = dist.get_rank(), dist.get_world_size()
        self.is_first = self.rank == 0
        num_machines = int(os.environ.get("GROUP_WORLD_SIZE", "1"))
        num_local = int(os.environ.get("LOCAL_WORLD_SIZE", self.count))
        nodes = f"--nnodes {num_machines} " if num_machines > 1 else ""
        self.launcher = f"torchrun {nodes}--nproc-per-node {num_local} -m "
        self._wrapped: list[nn.parallel.DistributedDataParallel] = []

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over processes, added in their order: the same bits on each."""
        return _sum_in_order(list(self.gather(values)))

    def gather(self, values: Tensor) -> Tensor:
        """Return the values of all N processes on each of them: [...] -> [N, ...]."""
        parts = [torch.empty_like(values) for _ in range(self.count)]
        dist.all_gather(parts, values.contiguous())
        return torch.stack(parts)

    def maximum(self, values: list[int]) -> list[int]:
        """Return the elementwise maximum over processes. Only hosts communicate, not GPUs."""
        maxima = torch.tensor(values)
        dist.all_reduce(maxima, dist.ReduceOp.MAX)
        return [int(maximum) for maximum in maxima]

    def broadcast(self, value: T) -> T:
        """Return the plain value that process 0 has."""
        box: list[Any] = [value]
        dist.broadcast_object_list(box, src=0)
        received: T = box[0]
        return received

    def collect(self, value: T) -> list[T]:
        """Return the plain values of all processes, in their order, on each of them."""
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return values

    def run_together(self, work: Callable[[], T]) -> T:
        """Call `work` on each process. If it fails on one, all processes end.

        The first process that failed raises its error; the others exit with status 2.
        """
        value: T | None = None
        failure: Exception | None = None
        try:
            value = work()
        except (ValueError, OSError) as error:
            failure = error
        has_failed: list[Any] = [None] * self.count
        dist.all_gather_object(has_failed, failure is not None)
        if any(has_failed):
            if failure is None or has_failed.index(True) != self.rank:
                raise SystemExit(2)
            raise failure
        return value  # type: ignore[return-value]  # without a failure it is what work returned

    def share_gradients(
        self, model: nn.Module, forward: Forward
    ) -> tuple[Forward, Callable[[], AbstractContextManager[object]]]:
        """Wrap `forward` so that the backward pass sums the gradients of `model` over processes.

        The weights of process 0 are copied to all processes first.

        Returns:
            The wrapped function, and a context in which gradients stay on this process. The context
            is for all parts of a batch but the last.
        """
        # Nothing reads the running statistics of batch norm before `broadcast_buffers` copies them,
        # so they need not be copied at every step.
        wrapped = nn.parallel.DistributedDataParallel(
            _ForwardModule(model, forward), forward_sync_buffers=False
        )
        wrapped.register_comm_hook(self.count, _sum_bucket_in_order)
        self._wrapped.append(wrapped)
        return wrapped, wrapped.no_sync

    def broadcast_buffers(self, network: nn.Module) -> None:
        """Copy the buffers (running statistics of batch norm) of process 0 to all processes."""
        for buffer in network.buffers():
            dist.broadcast(buffer, src=0)

    def leave(self) -> None:
        """Leave the process group. What `share_gradients` returned cannot be called afterwards.

        The reducer of DistributedDataParallel must be deleted before the process group. If it were
        the last owner (a traceback may keep it alive), it would destroy the group while it holds
        Python's lock. It would wait for gloo's thread, which needs that lock to free a tensor, and
        sometimes hang forever (LOG.md).
        """
        for wrapped in self._wrapped:
            del wrapped.logger, wrapped.reducer
        self._wrapped.clear()
        dist.destroy_process_group()

    def exit_unless_first(self, exit_status: int) -> None:
        """Exit silently unless this is process 0, which alone reports what happened to all."""
        if not self.is_first:
            raise SystemExit(exit_status)


Processes = OneProcess | ManyProcesses
ALONE = OneProcess()


@contextlib.contextmanager
def join_processes(device: str | None) -> Iterator[Processes]:
    """Join the processes that torchrun started while the context lasts.

    With GPUs, and unless `device` is "cpu", each process takes the GPU of its number on its
    machine.

    Yields:
        `ManyProcesses`, or `OneProcess` if torchrun started no other process.

    Raises:
        ValueError: If there are fewer GPUs than processes, or `device` names a single GPU.
        ConnectionError: If another process has ended.
    """
    if not is_distributed():
        yield ALONE
        return
    uses_gpu = _take_gpu(
        device,
        local_rank=int(os.environ["LOCAL_RANK"]),
        num_local=int(os.environ["LOCAL_WORLD_SIZE"]),
    )
    dist.init_process_group("cpu:gloo,cuda:nccl" if uses_gpu else "gloo")
    processes = ManyProcesses()
    try:
        yield processes
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        raise ConnectionError(
            f"another process of this run has ended ({str(error).splitlines()[0]})"
        ) from None
    finally:
        processes.leave()


def is_distributed() -> bool:
    """Return whether torchrun started this process together with others."""
    return dist.is_torchelastic_launched() and int(os.environ["WORLD_SIZE"]) > 1


def is_first_process() -> bool:
    """Return whether this process prints: it is the only one, or process 0."""
    return not is_distributed() or os.environ["RANK"] == "0"


def _take_gpu(device: str | None, *, local_rank: int, num_local: int) -> bool:
    """Let "cuda" mean GPU number `local_rank`. Return whether GPUs are used."""
    if device == "cpu" or not torch.cuda.is_available():
        return False
    if device not in (None, "cuda"):
        _refuse(
            f"--device {device}: {num_local} processes cannot share one device: "
            "remove it, or use --device cpu"
        )
    num_gpus = torch.cuda.device_count()
    if num_gpus < num_local:
        _refuse(
            f"{num_local} processes on this machine need as many GPUs, but it has {num_gpus}: "
            "start fewer processes, or use --device cpu"
        )
    torch.cuda.set_device(local_rank)
    return True


def _refuse(text: str) -> NoReturn:
    """Raise ValueError on process 0 and exit silently elsewhere.

    All processes fail alike here, before they can communicate.
    """
    if not is_first_process():
        raise SystemExit(2)
    raise ValueError(text)


class _ForwardModule(nn.Module):
    """A forward pass as the module that DistributedDataParallel wraps."""

    def __init__(self, model: nn.Module, forward: Forward) -> None:
        super().__init__()
        self.model = model
        self._forward = forward

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return self._forward(x, y)


def _sum_bucket_in_order(
    count: int,
    bucket: dist.GradBucket,  # type: ignore[name-defined]  # torch's stub lacks it, DDP asks for it
) -> torch.futures.Future[Tensor]:
    """Sum one bucket of gradients over `count` processes in their order, during the backward pass.

    The all-reduce of DistributedDataParallel adds in an order that depends on the place in the
    bucket. It also arranges its buckets differently after the first step, which a resumed run makes
    again. With more than two processes that would change bits. The price: N - 1 times the gradients
    travel to each process, where a ring needs twice the gradients.
    """
    local: Tensor = bucket.buffer()
    parts = [torch.empty_like(local) for _ in range(count)]
    gathered = dist.all_gather(parts, local, async_op=True)
    assert gathered is not None

    def add(gathered_parts: object) -> Tensor:
        for part in parts:
            if part.is_cuda:  # the tensors are freed here, on another stream than they were made on
                part.record_stream(torch.cuda.current_stream(part.device))
        return _sum_in_order(parts)

    future: torch.futures.Future[Tensor] = gathered.get_future().then(add)
    return future


def _sum_in_order(parts: list[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
