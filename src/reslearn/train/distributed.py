"""One net on many processes, as torchrun starts them, and what they tell one another; a process that is alone tells nobody anything.

Each process takes its share of every batch. Gradients and sums are added in the order of the processes, never in that of their arrival or
of a ring: so N processes make bit for bit the steps of one that passes a batch in N parts (`train.accumulate`), and a resumed run those
of the unbroken one. Process 0 alone writes. Paper: two GPUs, batch norm on each by itself (Sec. 4.2).
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
    """The neutral object: sums over one process, words to nobody."""

    rank, count, is_first, launcher = 0, 1, True, ""

    def sum(self, values: Tensor) -> Tensor:
        """The values themselves."""
        return values

    def gather(self, values: Tensor) -> Tensor:
        """[...] -> [1, ...]."""
        return values[None]

    def most(self, values: list[int]) -> list[int]:
        """The values themselves."""
        return values

    def from_first(self, value: T) -> T:
        """The value itself."""
        return value

    def together(self, work: Callable[[], T]) -> T:
        """Do the work."""
        return work()

    def sharing(
        self, model: nn.Module, forward: Forward
    ) -> tuple[Forward, Callable[[], AbstractContextManager[object]]]:
        """`forward` as it is: gradients are nobody else's."""
        return forward, nullcontext

    def share_state(self, net: nn.Module) -> None:
        """Nothing to share."""

    def leave_to_first(self, exit_status: int) -> None:
        """We are the first."""


@final
class ManyProcesses:
    """This process among those that torchrun started. Every method but the last two must be called by all of them, in one order."""

    def __init__(self) -> None:
        self.rank, self.count = dist.get_rank(), dist.get_world_size()
        self.is_first = self.rank == 0
        machines, each = (
            int(os.environ.get("GROUP_WORLD_SIZE", "1")),
            int(os.environ.get("LOCAL_WORLD_SIZE", self.count)),
        )
        on = f"--nnodes {machines} " if machines > 1 else ""
        self.launcher = f"torchrun {on}--nproc-per-node {each} -m "
        self._shared: list[nn.parallel.DistributedDataParallel] = []

    def sum(self, values: Tensor) -> Tensor:
        """The sum over processes, added in their order: the same bits on each."""
        return _in_order(list(self.gather(values)))

    def gather(self, values: Tensor) -> Tensor:
        """[...] of each -> [N, ...] on all."""
        parts = [torch.empty_like(values) for _ in range(self.count)]
        dist.all_gather(parts, values.contiguous())
        return torch.stack(parts)

    def most(self, values: list[int]) -> list[int]:
        """The largest of each, over processes: a word between hosts, which waits for no GPU."""
        words = torch.tensor(values)
        dist.all_reduce(words, dist.ReduceOp.MAX)
        return [int(word) for word in words]

    def from_first(self, value: T) -> T:
        """What process 0 has (a plain value)."""
        box: list[Any] = [value]
        dist.broadcast_object_list(box, src=0)
        received: T = box[0]
        return received

    def together(self, work: Callable[[], T]) -> T:
        """Do the work on each process; where it fails on one, none goes on, and the first that failed says why."""
        value: T | None = None
        fault: Exception | None = None
        try:
            value = work()
        except (ValueError, OSError) as error:
            fault = error
        faults: list[Any] = [None] * self.count
        dist.all_gather_object(faults, fault is not None)
        if any(faults):
            if fault is None or faults.index(True) != self.rank:
                raise SystemExit(2)
            raise fault
        return value  # type: ignore[return-value]  # there was no fault, so this is what work returned

    def sharing(
        self, model: nn.Module, forward: Forward
    ) -> tuple[Forward, Callable[[], AbstractContextManager[object]]]:
        """`forward` by torch's DistributedDataParallel: after its backward pass the gradients of `model` are the sum over processes.

        Also the context in which gradients stay with this process, for all parts of a batch but the last. Weights begin as process 0's.
        """
        # Nothing reads the running statistics of batch norm before `share_state`, so they need not travel at every step.
        shared = nn.parallel.DistributedDataParallel(
            _Pass(model, forward), forward_sync_buffers=False
        )
        shared.register_comm_hook(self.count, _sum_in_order)
        self._shared.append(shared)
        return shared, shared.no_sync

    def share_state(self, net: nn.Module) -> None:
        """Buffers (the running statistics of batch norm) as process 0 has them, everywhere; weights are the same already."""
        for buffer in net.buffers():
            dist.broadcast(buffer, src=0)

    def part(self) -> None:
        """Leave the others. What `sharing` gave cannot be called any more.

        DistributedDataParallel's reducer must go before the process group. As the last to hold it (a traceback may keep it alive) it would
        end it with Python's lock in hand and wait for gloo's thread, which needs that lock to free a tensor: for ever, at times (LOG.md).
        """
        for shared in self._shared:
            del shared.logger, shared.reducer
        self._shared.clear()
        dist.destroy_process_group()

    def leave_to_first(self, exit_status: int) -> None:
        """End here, silently, unless this is process 0: what all processes have run into alike is said once."""
        if not self.is_first:
            raise SystemExit(exit_status)


Processes = OneProcess | ManyProcesses
ALONE = OneProcess()


@contextlib.contextmanager
def processes_here(device: str | None) -> Iterator[Processes]:
    """Join the processes that torchrun started, for as long as the context lasts; `OneProcess` where it started no other.

    Each takes the GPU of its number on its machine where there are GPUs and `device` does not say "cpu". ValueError where there are
    fewer GPUs than processes, and for a device that only one of them can have; ConnectionError where another process is lost.
    """
    if not are_many():
        yield ALONE
        return
    on_gpu = _take_gpu(
        device,
        local_rank=int(os.environ["LOCAL_RANK"]),
        num_local=int(os.environ["LOCAL_WORLD_SIZE"]),
    )
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo")
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
        processes.part()


def are_many() -> bool:
    """Whether torchrun started this process and others beside it."""
    return dist.is_torchelastic_launched() and int(os.environ["WORLD_SIZE"]) > 1


def is_first() -> bool:
    """Whether this process is the one to speak: alone, or process 0."""
    return not are_many() or os.environ["RANK"] == "0"


def _take_gpu(device: str | None, *, local_rank: int, num_local: int) -> bool:
    """Make the GPU number `local_rank` the one that "cuda" means here; whether there is one."""
    if device == "cpu" or not torch.cuda.is_available():
        return False
    if device not in (None, "cuda"):
        _refuse(
            f"--device {device}: {num_local} processes cannot share one device: leave it out, or give --device cpu"
        )
    if torch.cuda.device_count() < num_local:
        _refuse(
            f"{num_local} processes on this machine need as many GPUs, it has {torch.cuda.device_count()}: or give --device cpu"
        )
    torch.cuda.set_device(local_rank)
    return True


def _refuse(text: str) -> NoReturn:
    """All processes find the same before they can talk; process 0 says it."""
    if not is_first():
        raise SystemExit(2)
    raise ValueError(text)


class _Pass(nn.Module):
    """A forward pass as the module that DistributedDataParallel wraps."""

    def __init__(self, model: nn.Module, forward: Forward) -> None:
        super().__init__()
        self.model = model
        self._forward = forward

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return self._forward(x, y)


def _sum_in_order(count: int, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:  # type: ignore[name-defined]  # torch's stub lacks it, DDP asks for it
    """One bucket of gradients from all processes, added in their order while the backward pass goes on.

    DistributedDataParallel's own all-reduce adds in an order that depends on the place in the bucket, and lays its buckets out anew
    after the first step, which a resumed run makes again: with more than two processes that would be other bits. The price: N - 1 times
    the gradients travel to each process, where a ring needs twice.
    """
    mine: Tensor = bucket.buffer()
    parts = [torch.empty_like(mine) for _ in range(count)]
    gathered = dist.all_gather(parts, mine, async_op=True)
    assert gathered is not None

    def add(done: object) -> Tensor:
        for part in parts:
            if part.is_cuda:  # they are let go here, on another stream than they were made on
                part.record_stream(torch.cuda.current_stream(part.device))
        return _in_order(parts)

    future: torch.futures.Future[Tensor] = gathered.get_future().then(add)
    return future


def _in_order(parts: list[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
