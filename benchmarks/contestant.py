"""One loop in a process of its own, that trains when it is told to and says how far it came.

A process each, since the settings of the memory allocator hold for a whole process. Talks by lines of JSON: tells on standard output
what it is once it is warm, then answers each line {"seconds": S} with what it did in S seconds.
`python -m benchmarks.contestant --loop ours --model resnet20 --threads 2`: for benchmarks/train.py, not for people.
"""

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

NUM_WARM_STEPS = 4
# The plainest loop in float32, and on a GPU peer_loop.py, compiled or not.
RIVALS = (
    "plain",
    *(peer + way for peer in ("autocast", "torchvision", "timm") for way in ("", "-compiled")),
)


def matrix_product_flops(dtype: torch.dtype, *, device: str, seconds: float) -> float:
    """Floating-point operations a second (two a multiply-add) of square matrix products, over at least `seconds`."""
    size = 8192 if device.startswith("cuda") else 2048
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.mm(a, b)
    num, started = 0, _now(device)
    while not num or _now(device) - started < seconds:
        torch.mm(a, b, out=out)
        num += 1
    return 2 * size**3 * num / (_now(device) - started)


def turns(*, about: dict[str, Any], batch_size: int, device: str) -> Iterator[None]:
    """Yield once for each step that the loop is to make: to warm up, then in turns.

    Tells `about` and the seconds that the warm-up took. Each line of standard input is a turn.
    """
    started = _now(device)
    for _ in range(NUM_WARM_STEPS):
        yield
    dtype = torch.bfloat16 if about["precision"] == "bf16" else torch.float32
    _say({**about, "warm_up_seconds": _now(device) - started})
    for line in sys.stdin:
        seconds = json.loads(line)["seconds"]
        flops = matrix_product_flops(dtype, device=device, seconds=seconds / 10)
        num, started, others = 0, _now(device), _seconds_of_others()
        while not num or _now(device) - started < seconds:
            yield
            num += 1
        elapsed = _now(device) - started
        others_pct = (
            100 * max(0.0, _seconds_of_others() - others) / (elapsed * (os.cpu_count() or 1))
        )
        _say(
            {
                "images": num * batch_size,
                "seconds": elapsed,
                "matrix_product_flops": flops,
                "others_pct": others_pct,
            }
        )


def run_steps(steps: Iterator[object], turns: Iterable[object]) -> None:
    """Make a step for each turn. A loop that returns losses must not diverge."""
    for _ in turns:
        loss = next(steps)
        assert not isinstance(loss, float) or math.isfinite(loss), "the plain loop diverged"


def _now(device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()


def _seconds_of_others() -> float:
    """Processor time that all processes but this one have taken since the machine started, all cores together; 0 where it is not told."""
    if not sys.platform.startswith("linux"):
        return 0.0
    # user nice system idle iowait irq softirq steal, in ticks (proc(5))
    user, nice, system, _, _, irq, softirq, steal = map(
        int, Path("/proc/stat").read_text().split(maxsplit=9)[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / os.sysconf(
        "SC_CLK_TCK"
    ) - time.process_time()


def _say(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)


def made_up_images(
    *, size_px: int, num_images: int, num_classes: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """uint8 [N, H, W, 3] and int64 [N]: what images show costs nothing. Every class occurs."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (num_images, size_px, size_px, 3), dtype=np.uint8)
    labels = generator.integers(0, num_classes, num_images)
    labels[-1] = num_classes - 1
    return pixels, labels


def main() -> None:
    """Build the loop that is asked for, and serve it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loop", choices=["ours", *RIVALS], required=True)
    parser.add_argument("--without", default=None)
    parser.add_argument("--model", required=True)
    parser.add_argument("--size-px", type=int, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--num-images", type=int, required=True)
    parser.add_argument("--num-classes", type=int, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--threads", type=int, required=True)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    pixels, labels = made_up_images(
        size_px=given.size_px, num_images=given.num_images, num_classes=given.num_classes
    )
    if given.loop == "plain":
        from benchmarks.plain_loop import plain_loop

        steps: Iterator[object] = plain_loop(
            given.model, pixels, labels, batch_size=given.batch_size, device=given.device
        )
        about: dict[str, Any] = {"precision": "fp32", "compiled": False}
    elif given.loop in RIVALS:
        from benchmarks.peer_loop import peer_loop

        peer, compiled = given.loop.removesuffix("-compiled"), given.loop.endswith("-compiled")
        steps = peer_loop(
            peer,
            given.model,
            pixels,
            labels,
            batch_size=given.batch_size,
            device=given.device,
            compiled=compiled,
        )
        about = {"precision": "bf16", "compiled": compiled}
    else:
        from benchmarks.our_loop import Part, our_loop

        ours = our_loop(
            given.model,
            pixels,
            labels,
            batch_size=given.batch_size,
            device=given.device,
            threads=given.threads,
            without=Part(given.without) if given.without else None,
        )
        ours.run(
            turns(about=ours.numerics.to_dict(), batch_size=given.batch_size, device=given.device)
        )
        return
    run_steps(steps, turns(about=about, batch_size=given.batch_size, device=given.device))


if __name__ == "__main__":
    main()
