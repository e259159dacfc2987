"""Runs that train together in one process: runs of one kind compute their steps as a single network.

As many runs are computed together as fit in memory.
"""

import contextlib
import copy
import functools
import gc
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from reg_sweep.config.rules import ConfigError
from reg_sweep.training.devices import generators, kept_memory, own_torch_state, set_generators
from reg_sweep.training.dropout import Dropout
from reg_sweep.training.objective import Batch, wide
from reg_sweep.training.stacked import NotStackableError, StackedNetwork, check_stackable
from reg_sweep.training.turns import Interrupted, Job, Switch, Turns, stop_on_signals

log = logging.getLogger(__name__)

POLL_S = 0.2  # pause while all jobs wait for other processes
SHARE_OF_MEMORY = 0.8  # share of the free memory that stacks may use

Answer = tuple[Tensor, Tensor] | Exception


class Stack:
    """The steps of several jobs of one kind, as one forward and one backward pass."""

    def __init__(self, jobs: Sequence[Job], batches: Sequence[Batch]) -> None:
        """Stacks the networks of the jobs.

        Raises:
            NotStackableError: they can't be stacked.
        """
        self._jobs, first = list(jobs), batches[0].step
        models = [batch.step.model for batch in batches]
        self._networks = StackedNetwork(models, lambda i: generator_of(self._jobs[i]), first.memory_format)
        self._layers = [m for model in models for m in model.modules() if isinstance(m, Dropout)]

    def compute(self, batches: Sequence[Batch]) -> list[Answer]:
        """Computes all gradients; returns each job's loss and number of correctly classified images.

        If it raises, the norms' statistics and the generators are unchanged.
        """
        drawn_from = {id(layer.generator): layer.generator for layer in self._layers if layer.generator is not None}
        before = self._networks.state(), [job.state[0] for job in self._jobs]
        draws = [(own, own.bit_generator.state) for own in drawn_from.values()]
        try:
            return self._compute(batches)
        except BaseException:
            self._networks.set_state(before[0])
            for job, state in zip(self._jobs, before[1], strict=True):
                job.state[0] = state
            for own, state in draws:
                own.bit_generator.state = state
            raise

    def _compute(self, batches: Sequence[Batch]) -> list[Answer]:
        with batches[0].step.autocast:
            logits = wide(self._networks.logits([b.x for b in batches]))  # (N, M, K)
        losses = _losses(logits, batches)
        losses.sum().backward()
        self._networks.hand_out_gradients()
        n_right = (logits.argmax(2) == torch.stack([b.labels.main for b in batches], 1)).sum(0)
        # Moved to the CPU together: otherwise each run would wait for the device when it reads its loss.
        return list(zip(losses.detach().cpu().unbind(), n_right.cpu().unbind(), strict=True))


def _losses(logits: Tensor, batches: Sequence[Batch]) -> Tensor:
    """Each member's mean loss, (M,), independent of the other members. Plain cross-entropies are computed together."""
    losses: list[Tensor] = [logits.new_empty(0)] * len(batches)
    plain: dict[float, list[int]] = {}
    for i, batch in enumerate(batches):
        smoothing = batch.step.objective.smoothing(batch.labels)
        if smoothing is None:
            losses[i] = batch.step.objective.loss(logits[:, i].contiguous(), batch.labels)
        else:
            plain.setdefault(smoothing, []).append(i)
    for smoothing, places in plain.items():
        its = torch.cat([logits[:, i] for i in places])  # (M' N, K)
        labels = torch.cat([batches[i].labels.own for i in places])
        each = F.cross_entropy(its, labels, reduction="none", label_smoothing=smoothing)
        for i, loss in zip(places, each.unflatten(0, (len(places), -1)).mean(1), strict=True):
            losses[i] = loss
    return torch.stack(losses)


@contextlib.contextmanager
def generator_of(job: Job) -> Iterator[None]:
    """Switches torch's generators to a job's within the block."""
    before = generators()
    set_generators(job.state[0])
    try:
        yield
    finally:
        job.state[0] = generators()
        set_generators(before)


class Population:
    """Trains the runs of several jobs together in this process; a job is a function that calls `fit` or `train`.

    The jobs take turns. Each has its own batches, draws, optimizer, penalties and records, as if it ran alone. Jobs
    with steps of one kind compute their forward and backward passes together, in stacks as large as memory allows; a
    network that can't be stacked is computed alone. A job that ends leaves its stack. A job that begins joins at the
    others' next epoch, so that all jobs in a stack are at the same batch of their epochs. A run's `seconds` are its own
    turns and its share of the common passes.
    """

    def __init__(
        self, device: torch.device, threads: int | None, at_most: int, switches: Iterable[Switch] = ()
    ) -> None:
        """`at_most` is the largest number of runs at a time; for `switches` see `Turns`.

        Raises:
            ConfigError: the device is Apple's GPU, whose generator can't be switched between runs.
        """
        if device.type == "mps":
            raise ConfigError("runtime.device must be cuda or cpu with +cluster=population, got mps: set one of them")
        self._device, self._threads, self._at_most, self._switches = device, threads, at_most, list(switches)
        self._stacks: dict[str, dict[tuple[Job, ...], Stack]] = {}
        self._n_at_once: dict[str, int] = {}  # the largest stack of each kind; 1 if it can't be stacked
        self._logged_kinds: set[str] = set()
        self._is_warned = False

    def run(self, functions: Sequence[Callable[[], Any]]) -> list[Any]:
        """Runs all functions to completion; returns their results.

        Raises:
            Interrupted: a signal asked to stop, and all jobs have stopped.
            BaseException: the error of a job, after the other jobs have ended.
        """
        waiting = deque(functions)
        jobs: list[Job] = []
        live: list[Job] = []
        if self._device.type == "cpu" and not self._is_warned:
            self._is_warned = True
            log.warning(
                "a population on the CPU is no faster than its runs one after another: if this machine has more cores "
                "than a run has threads, +cluster=joblib is faster"
            )
        with stop_on_signals() as caught, own_torch_state(self._device, self._threads), kept_memory():
            turns = Turns([(generators, set_generators), *self._switches], caught)
            while live or (waiting and not caught):
                while waiting and len(live) < self._at_most and not caught:
                    jobs.append(turns.begin(functools.partial(self._begun, waiting.popleft())))
                    live.append(jobs[-1])
                for job, answer in self._answers([job for job in live if not job.is_done]):
                    turns.turn(job, answer)
                live = [job for job in live if not job.is_done]
        self._stacks.clear()
        for job in jobs:
            if job.error is not None:
                raise job.error
        if caught:
            raise Interrupted(caught[0])
        return [job.result for job in jobs]

    def _begun(self, function: Callable[[], Any]) -> Any:
        if self._threads is not None:
            torch.set_num_threads(self._threads)  # torch's setting is per thread
        return function()

    def _answers(self, jobs: list[Job]) -> Iterator[tuple[Job, Answer | None]]:
        """The jobs whose turn it is, with the answers to their questions."""
        paused = [job for job in jobs if job.question is None]
        if len(paused) == len(jobs) > 0:
            time.sleep(POLL_S)
        yield from ((job, None) for job in paused)
        kinds: dict[str, list[Job]] = {}
        for job in jobs:
            if job.question is not None:
                kinds.setdefault(job.question.step.kind, []).append(job)
        for kind, its in kinds.items():
            number = max(job.question.number for job in its)  # new jobs wait for the others' epoch to end
            yield from self._computed(kind, [job for job in its if job.question.number == number])

    def _computed(self, kind: str, jobs: list[Job]) -> Iterator[tuple[Job, Answer]]:
        kept, self._stacks[kind] = self._stacks.get(kind, {}), {}
        waiting = deque(_parts(jobs, self._at_once(kind, jobs)))
        while waiting:
            part = waiting.popleft()
            batches = [job.question for job in part]
            started = time.perf_counter()
            answers: Sequence[Answer]
            try:
                if len(part) == 1:
                    answers = [_alone(part[0], batches[0])]
                else:
                    stack = kept.get(part) or Stack(part, batches)
                    answers = stack.compute(batches)
                    self._stacks[kind][part] = stack
            except Exception as error:
                if len(part) > 1:
                    kept.clear()
                    self._n_at_once[kind] = _fewer(len(part), error)
                    waiting.extendleft(reversed(_parts(part, self._n_at_once[kind])))
                    continue
                answers = [error]  # this run's own error: it fails, and the others continue
            share = (time.perf_counter() - started) / len(part)
            for job in part:
                job.add_seconds(share)
            yield from zip(part, answers, strict=True)

    def _at_once(self, kind: str, jobs: list[Job]) -> int:
        """How many runs of a kind are computed together: as many as memory allows, or 1 if they can't be stacked."""
        if len(jobs) == 1:
            if kind not in self._logged_kinds:
                log.info("training alone, as the only run of its kind: %s", kind)
        elif kind not in self._n_at_once:
            first = jobs[0].question
            models = [job.question.step.model for job in jobs[:2]]
            try:
                check_stackable(models, first.x.shape[1:], first.step.memory_format)
            except NotStackableError as error:
                self._n_at_once[kind] = 1
                log.info("%d runs are computed one by one, because %s: %s", len(jobs), error, kind)
            else:
                own, free = step_bytes(first), available_bytes(self._device)
                self._n_at_once[kind] = max(1, int(min(SHARE_OF_MEMORY * free / own, self._at_most)))
                log.info("%d runs in stacks of at most %d: %s", len(jobs), self._n_at_once[kind], kind)
                if self._n_at_once[kind] < self._at_most:
                    log.info("(a run's step takes %.0f MB, and %.0f MB are free)", own / 1e6, free / 1e6)
        self._logged_kinds.add(kind)
        return self._n_at_once.get(kind, 1)


def _alone(job: Job, batch: Batch) -> Answer:
    with generator_of(job):
        return batch.step.compute(batch.x, batch.labels)


def _parts(jobs: Sequence[Job], largest: int) -> list[tuple[Job, ...]]:
    """Splits jobs into the fewest parts of at most `largest` jobs, of about equal size."""
    n_parts = -(-len(jobs) // largest)
    edges = [len(jobs) * i // n_parts for i in range(n_parts + 1)]
    return [tuple(jobs[low:high]) for low, high in pairwise(edges)]


def _fewer(n: int, error: Exception) -> int:
    """How many runs to compute together from now on, after a stack of `n` failed."""
    if is_out_of_memory(error):
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        log.warning("not enough memory for a stack of %d runs: continuing in stacks of %d", n, -(-n // 2))
        return -(-n // 2)
    said = " ".join(f"{type(error).__name__}: {error}".split())
    log.warning("a stack of %d runs failed, the runs continue one by one: %.200s", n, said)
    return 1


def step_bytes(batch: Batch) -> float:
    """Memory of one run's forward and backward pass in bytes, estimated from a forward pass of a copy of its network.

    It is twice the size of the tensors saved for the backward pass, to allow for the gradients of activations and the
    workspace of convolutions.
    """
    step, sizes = batch.step, dict[int, int]()
    model, before = copy.deepcopy(step.model), generators()

    def note(saved: Tensor) -> Tensor:
        storage = saved.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return saved

    with torch.autograd.graph.saved_tensors_hooks(note, lambda saved: saved), step.autocast:
        logits = model(batch.x.contiguous(memory_format=step.memory_format))
    del logits
    set_generators(before)
    return max(1.0, 2.0 * sum(sizes.values()))


def available_bytes(device: torch.device) -> float:
    """Bytes of free memory on a device; infinite if unknown."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(torch.cuda.mem_get_info(device)[0] + kept)
    meminfo = Path("/proc/meminfo")
    if device.type == "cpu" and meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024.0 * int(line.split()[1])
    return math.inf


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error means that the device or this machine ran out of memory."""
    lacks = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return lacks or (isinstance(error, RuntimeError) and "allocate memory" in str(error))
