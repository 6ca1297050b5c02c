"""The parts of a corpus on Ray Data: tasks that read files, and actors that hold the model.

Ray starts an actor that died again and gives it its parts again; a part that is written twice has
the same name, so nothing is lost or repeated.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from pellucid.common.files import reason_of
from pellucid.corpora.parts import Part, Reader
from pellucid.corpora.tasks import Task
from pellucid.corpora.worker import Done, Worker
from pellucid.errors import ArgumentError, MissingExtraError

READER_CPUS = 0.1
"""Of a task that reads: readers must find room beside the workers of a small machine."""

START_SECONDS = "120"
"""How long Ray may take to start on this machine, which may be busy."""


class Actor:
    """A worker in a process of Ray's, for batches of one part."""

    def __init__(self, task: Task, output: Path, threads: int | None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self.worker = Worker(task, output)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"done": [self.worker(part) for part in batch["part"]]}


def worked(
    reader: Reader, files: Sequence[str], task: Task, output: Path, workers: int | str
) -> Iterator[Done]:
    """What each part came to, as soon as it is done.

    Args:
        reader: of the corpus.
        files: their names.
        task: for each part.
        output: the directory of the run.
        workers: processes on this machine, or the address of a cluster.

    Raises:
        ArgumentError: the cluster cannot be reached.
        MissingExtraError: Ray is not installed.
    """
    # Ray reads these as it is imported and as it starts.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")  # or it prints between our lines
    os.environ.setdefault("RAY_raylet_start_wait_time_s", START_SECONDS)
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtraError.of("several workers need Ray", "ray") from error

    def read(batch: dict[str, Any]) -> Iterator[dict[str, list[Part]]]:
        for file in batch["item"]:
            for part in reader.parts(str(file)):
                yield {"part": [part]}

    cores = os.cpu_count() or 1
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        if isinstance(workers, int):
            ray.init(
                num_cpus=max(cores, workers),
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
            threads = max(1, cores // workers)
        else:
            ray.init(address=workers, log_to_driver=False, logging_level=logging.ERROR)
            workers, threads = max(1, int(ray.cluster_resources().get("CPU", 1))), None
    except Exception as error:
        raise ArgumentError(f"Ray does not start: {reason_of(error)}") from error
    try:
        context = ray.data.DataContext.get_current()
        context.target_max_block_size = 1  # each part is a block, which any worker may take
        context.enable_progress_bars = False
        context.issue_detectors_config.detectors = []  # they warn of readers without a limit
        names = ray.data.from_items(list(files), override_num_blocks=len(files))
        parts = names.map_batches(read, batch_size=1, num_cpus=READER_CPUS)
        results = parts.map_batches(
            Actor,
            fn_constructor_args=(task, output, threads),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_cpus=1 - READER_CPUS,
        )
        for row in results.iter_rows():
            yield row["done"]
    finally:
        ray.shutdown()
