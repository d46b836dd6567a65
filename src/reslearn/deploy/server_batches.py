"""The way of a picture through the server: decoded, computed in a batch, drawn if wanted.

Decoding threads take the pictures of all requests in the order of their arrival, and hand them to
the thread of their model. While that thread computes a batch, further pictures arrive, and they
form the next batch. So nobody waits for a batch to become full, and batches grow with the load.

A batch returns to the event loop in one step. A step for each picture would wake the loop as often,
and each time both threads would wait for the interpreter lock.
"""

from __future__ import annotations

import asyncio
import base64
import io
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from PIL import Image

from reslearn.data.pictures import Pixels
from reslearn.deploy.heat_maps import draw_heat_maps
from reslearn.deploy.predictor import Prediction, Predictor
from reslearn.deploy.server_body import PictureFile
from reslearn.deploy.server_limits import Admission

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True, eq=False)
class Answer:
    """What the model says of one picture.

    Attributes:
        heat_map: A PNG as a data address, if the request asked for one.
    """

    prediction: Prediction
    heat_map: str | None = None


class PendingRequest:
    """The answers of one request, which arrive picture by picture.

    The event loop creates, settles and closes it. Threads read it and post to it.

    Args:
        files: The pictures.
        with_heat_map: Whether each answer needs a heat map.

    Attributes:
        answers: One answer for each picture, in order, or the first error.
    """

    def __init__(self, files: Sequence[PictureFile], *, with_heat_map: bool = False) -> None:
        self.with_heat_map = with_heat_map
        self._loop = asyncio.get_running_loop()
        self.answers: asyncio.Future[list[Answer]] = self._loop.create_future()
        self._files = files
        self._num_pictures = len(files)
        self._answer_of: dict[int, Answer] = {}

    @property
    def is_open(self) -> bool:
        """Whether somebody still waits for the answers."""
        return not self.answers.done()

    def file(self, index: int) -> PictureFile | None:
        """Return a picture; None if the request was closed."""
        files = self._files
        return files[index] if index < len(files) else None

    def close(self) -> None:
        """Let go of the pictures. They would else stay in memory while they wait for a thread."""
        self._files = ()

    def post(self, outcomes: Sequence[Outcome]) -> None:
        """Settle outcomes, of this and other requests, in the event loop. Threads call it."""
        with suppress(RuntimeError):  # the loop has ended, and nobody waits any more
            self._loop.call_soon_threadsafe(_settle, outcomes)

    def settle(self, index: int, value: Answer | Exception) -> None:
        """Note the answer for a picture, or the error that refuses the request."""
        if self.answers.done():
            return
        if isinstance(value, Exception):
            self.answers.set_exception(value)
            return
        self._answer_of[index] = value
        if len(self._answer_of) == self._num_pictures:
            ordered = [self._answer_of[number] for number in range(self._num_pictures)]
            self.answers.set_result(ordered)


@dataclass(frozen=True, eq=False, slots=True)
class Outcome:
    """The answer for the picture `index` of a request, or why there is none."""

    request: PendingRequest
    index: int
    value: Answer | Exception


@dataclass(frozen=True, eq=False, slots=True)
class DecodedPicture:
    """What `Predictor.pixels` makes of the picture `index` of a request."""

    request: PendingRequest
    index: int
    pixels: Pixels


class ThreadTeam:
    """Threads that call functions in the order in which they are submitted.

    It does less for each call than `ThreadPoolExecutor`, which makes a future with a lock.

    Args:
        name: Name of the threads.
        num_threads: Number of threads.
    """

    def __init__(self, name: str, num_threads: int) -> None:
        self._functions: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"{name} {number}", daemon=True)
            for number in range(num_threads)
        ]

    def start(self) -> None:
        """Start the threads of the team."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Call what was submitted, then end the threads."""
        for _ in self._threads:
            self._functions.put(None)
        for thread in self._threads:
            thread.join()

    def submit(self, function: Callable[[], None]) -> None:
        """Call a function in one of the threads. It handles its errors itself."""
        self._functions.put(function)

    async def run(self, function: Callable[[], Result]) -> Result:
        """Call a function in one of the threads, and return its result."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()

        def call() -> None:
            try:
                settle = partial(future.set_result, function())
            except Exception as error:
                settle = partial(future.set_exception, error)
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(lambda: None if future.done() else settle())

        self.submit(call)
        return await future

    def _work(self) -> None:
        while (function := self._functions.get()) is not None:
            try:
                function()
            except Exception:  # the thread must outlive every error
                logging.getLogger(__name__).exception("a thread of the server failed")


class BatchingQueue:
    """A queue of decoded pictures for one model, and the thread that answers them.

    `Admission` bounds the number of pictures in all queues.

    Args:
        name: Name of the model.
        predictor: Its batch size is the largest batch.
        admission: The pixels of a picture are given back to it when the picture is answered.
        observe: Called with the number of pictures and the seconds of each batch, in the thread.
        drawers: The team that draws heat maps, so that no batch waits for them.
    """

    def __init__(
        self,
        name: str,
        predictor: Predictor,
        admission: Admission,
        observe: Callable[[str, int, float], None],
        drawers: ThreadTeam,
    ) -> None:
        self.name = name
        self.predictor = predictor
        self._admission = admission
        self._observe = observe
        self._drawers = drawers
        self._pictures: queue.SimpleQueue[DecodedPicture | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"model {name}", daemon=True)

    def start(self) -> None:
        """Start the thread that computes batches."""
        self._thread.start()

    def stop(self) -> None:
        """Answer what waits, then end the thread."""
        self._pictures.put(None)
        self._thread.join()

    @property
    def is_alive(self) -> bool:
        """Whether the thread still takes pictures."""
        return self._thread.is_alive()

    @property
    def num_waiting(self) -> int:
        """Number of decoded pictures that wait."""
        return self._pictures.qsize()

    def put(self, picture: DecodedPicture) -> None:
        """Queue a picture whose pixels `Admission.take_pixels` has counted."""
        self._pictures.put(picture)

    def _work(self) -> None:
        is_stopping = False
        while not is_stopping:
            batch, is_stopping = self._take()
            pictures = []
            for picture in batch:
                if picture.request.is_open:
                    pictures.append(picture)
                else:
                    self._admission.give_pixels(picture.pixels)
            if pictures:
                self._answer(pictures)

    def _take(self) -> tuple[list[DecodedPicture], bool]:
        """Wait for a picture, and return it with all others that wait, and whether to stop."""
        pictures: list[DecodedPicture] = []
        picture = self._pictures.get()
        while picture is not None:
            pictures.append(picture)
            if len(pictures) == self.predictor.batch_size:
                return pictures, False
            try:
                picture = self._pictures.get_nowait()
            except queue.Empty:
                return pictures, False
        return pictures, True

    def _answer(self, pictures: Sequence[DecodedPicture]) -> None:
        start = time.perf_counter()
        try:
            predictions = self.predictor.predict_pixels([picture.pixels for picture in pictures])
        except Exception as error:  # the thread must outlive every error
            if len(pictures) == 1:
                self._finish([Outcome(pictures[0].request, pictures[0].index, error)], pictures)
            else:  # one picture must not take the others down
                for picture in pictures:
                    self._answer([picture])
            return
        self._observe(self.name, len(pictures), time.perf_counter() - start)
        answered, outcomes = [], []
        for picture, prediction in zip(pictures, predictions, strict=True):
            if picture.request.with_heat_map:
                self._drawers.submit(partial(self._draw, picture, prediction))
            else:
                answered.append(picture)
                answer = Answer(prediction=prediction)
                outcomes.append(Outcome(picture.request, picture.index, answer))
        self._finish(outcomes, answered)

    def _draw(self, picture: DecodedPicture, prediction: Prediction) -> None:
        """Answer with a heat map. A thread of the drawers calls it."""
        value: Answer | Exception
        try:
            value = Answer(prediction=prediction, heat_map=self._heat_map(picture, prediction))
        except Exception as error:
            value = error
        self._finish([Outcome(picture.request, picture.index, value)], [picture])

    def _heat_map(self, picture: DecodedPicture, prediction: Prediction) -> str | None:
        if not picture.request.is_open:
            return None
        index = int(prediction.probabilities.argmax())
        (drawing,) = draw_heat_maps(self.predictor.model, [picture.pixels], [index])
        with io.BytesIO() as file:
            Image.fromarray(drawing).save(file, "PNG")
            return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"

    def _finish(self, outcomes: Sequence[Outcome], pictures: Sequence[DecodedPicture]) -> None:
        """Give the pixels of pictures back, and post their outcomes together."""
        self._admission.give_pixels(*(picture.pixels for picture in pictures))
        if outcomes:
            outcomes[0].request.post(outcomes)


def _settle(outcomes: Sequence[Outcome]) -> None:
    for outcome in outcomes:
        outcome.request.settle(outcome.index, outcome.value)
