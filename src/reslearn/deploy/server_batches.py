"""One thread per model that computes the pictures that wait, as many at once as wait.

While a batch is computed, further pictures arrive, and they form the next batch. So nobody waits
for a batch to become full, and batches grow with the load.
"""

from __future__ import annotations

import base64
import io
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from PIL import Image

from reslearn.data.pictures import Pixels
from reslearn.deploy.heat_maps import draw_heat_maps
from reslearn.deploy.predictor import Prediction, Predictor


@dataclass(frozen=True, kw_only=True, eq=False)
class Answer:
    """What the model says of one picture.

    Attributes:
        heat_map: A PNG as a data address, if the request asked for one.
    """

    prediction: Prediction
    heat_map: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class _Job:
    pixels: Pixels
    with_heat_map: bool
    future: Future[Answer] = field(default_factory=Future)


class BatchingQueue:
    """A queue of pictures for one model, and the thread that answers them.

    `Admission` bounds the number of pictures in all queues.

    Args:
        name: Name of the model.
        predictor: Its batch size is the largest batch.
        observe: Called with the number of pictures and the seconds of each batch, in the thread.
    """

    def __init__(
        self, name: str, predictor: Predictor, observe: Callable[[str, int, float], None]
    ) -> None:
        self.name = name
        self.predictor = predictor
        self._observe = observe
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"model {name}", daemon=True)

    def start(self) -> None:
        """Start the thread that computes batches."""
        self._thread.start()

    def stop(self) -> None:
        """Answer what waits, then end the thread."""
        self._jobs.put(None)
        self._thread.join()

    @property
    def is_alive(self) -> bool:
        """Whether the thread still takes pictures."""
        return self._thread.is_alive()

    def submit(self, pixels: Pixels, *, with_heat_map: bool = False) -> Future[Answer]:
        """Queue a picture that `Predictor.pixels` prepared."""
        job = _Job(pixels=pixels, with_heat_map=with_heat_map)
        self._jobs.put(job)
        return job.future

    def _work(self) -> None:
        is_stopping = False
        while not is_stopping:
            jobs, is_stopping = self._take()
            jobs = [job for job in jobs if job.future.set_running_or_notify_cancel()]
            if jobs:
                self._answer(jobs)

    def _take(self) -> tuple[list[_Job], bool]:
        """Wait for a job, and return it with all others that wait, and whether to stop."""
        jobs: list[_Job] = []
        job = self._jobs.get()
        while job is not None:
            jobs.append(job)
            if len(jobs) == self.predictor.batch_size:
                return jobs, False
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return jobs, False
        return jobs, True

    def _answer(self, jobs: list[_Job]) -> None:
        start = time.perf_counter()
        try:
            predictions = self.predictor.predict_pixels([job.pixels for job in jobs])
        except Exception as error:  # the thread must outlive every error
            if len(jobs) == 1:
                jobs[0].future.set_exception(error)
            else:  # one picture must not take the others down
                for job in jobs:
                    self._answer([job])
            return
        self._observe(self.name, len(jobs), time.perf_counter() - start)
        for job, prediction in zip(jobs, predictions, strict=True):
            if not job.with_heat_map:
                job.future.set_result(Answer(prediction=prediction))
        for job, prediction in zip(jobs, predictions, strict=True):
            if job.with_heat_map:
                self._draw(job, prediction)

    def _draw(self, job: _Job, prediction: Prediction) -> None:
        try:
            index = int(prediction.probabilities.argmax())
            (drawing,) = draw_heat_maps(self.predictor.model, [job.pixels], [index])
            with io.BytesIO() as file:
                Image.fromarray(drawing).save(file, "PNG")
                text = base64.b64encode(file.getvalue()).decode()
        except Exception as error:
            job.future.set_exception(error)
        else:
            address = f"data:image/png;base64,{text}"
            job.future.set_result(Answer(prediction=prediction, heat_map=address))
