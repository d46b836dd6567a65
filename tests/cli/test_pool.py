"""Worker processes end with the process that started them."""

import os
import signal
import subprocess
import sys
import time

SCRIPT = """
import os, time
from reslearn.cli.output import process_pool

def work(seconds):
    print(os.getpid(), flush=True)
    time.sleep(seconds)

if __name__ == "__main__":
    with process_pool(1) as pool:
        pool.submit(work, 60).result()
"""


def test_a_worker_ends_with_a_process_that_was_killed(tmp_path: os.PathLike[str]) -> None:
    script = os.path.join(tmp_path, "script.py")
    with open(script, "w", encoding="utf-8") as file:
        file.write(SCRIPT)
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        deadline = time.monotonic() + 20
        while _is_running(worker) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not _is_running(worker)


def _is_running(pid: int) -> bool:
    """Return whether the process exists and is not a zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
