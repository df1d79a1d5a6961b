"""The allocations of training or inference steps of a `Tape`, as sizes affine in the batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from benchmarks.memory.tape import Convolution, Op, Tape, Tensor

Pass = Literal["forward", "data", "weights"]


@dataclass(frozen=True, slots=True)
class StepConfig:
    """How a model is trained. Bytes are a parameter's or an element's."""

    training: bool = True
    mixed: bool = False
    optimizer_slots: int = 1
    """Tensors of the parameters' size that the optimizer keeps: 0 plain SGD, 1 momentum, 2 Adam."""
    optimizer_temporaries: float = 0.0
    """Parameter-sized temporaries of its step, as the foreach implementations make."""
    keeps_gradients: bool = False
    in_place: bool = True
    steps: int = 2


@dataclass(frozen=True, slots=True)
class AllocationEvent:
    """Allocation of `fixed + per_sample * batch` bytes (or of a convolution's workspace), or a release of `key`."""

    key: int
    fixed: int = 0
    per_sample: int = 0
    workspace: tuple[Convolution, Pass] | None = None
    release: bool = False


@dataclass
class _StepRecorder:
    """Walks the tape forth and back, and counts who still needs which storage."""

    tape: Tape
    way: StepConfig
    events: list[AllocationEvent] = field(default_factory=list)
    _count: int = 0
    _storage: dict[int, int] = field(default_factory=dict)
    _needs: Counter[int] = field(default_factory=Counter)

    @property
    def element_bytes(self) -> int:
        return 2 if self.way.mixed else 4

    def allocate(self, fixed: int = 0, per_sample: int = 0) -> int:
        self._count += 1
        self.events.append(AllocationEvent(self._count, fixed, per_sample))
        return self._count

    def release(self, key: int) -> None:
        self.events.append(AllocationEvent(key, release=True))

    def transient(self, fixed: int = 0, per_sample: int = 0) -> None:
        if fixed or per_sample:
            self.release(self.allocate(fixed, per_sample))

    def workspace(self, spec: Convolution | None, which: Pass) -> None:
        if spec is not None:
            self._count += 1
            self.events.append(AllocationEvent(self._count, workspace=(spec, which)))
            self.release(self._count)

    def need(self, tensor: Tensor) -> None:
        self._needs[self._storage[tensor.key]] += 1

    def drop_reference(self, tensor: Tensor) -> None:
        key = self._storage[tensor.key]
        self._needs[key] -= 1
        if not self._needs[key]:
            self.release(key)

    def output_bytes(self, op: Op) -> int:
        return op.output.elements * (4 if op.full_precision else self.element_bytes)

    def forward(self, op: Op, uses: Counter[int], kept: dict[int, list[int]], index: int) -> None:
        copies: list[int] = []
        if op.parameters and self.way.mixed:
            copies.append(self.allocate(2 * op.parameters))
        self.workspace(op.convolution, "forward")
        if op.in_place and self.way.in_place:
            self._storage[op.output.key] = self._storage[op.inputs[0].key]
        else:
            self._storage[op.output.key] = self.allocate(0, self.output_bytes(op))
        for _ in range(uses[op.output.key]):
            self.need(op.output)
        if self.way.training:
            for tensor in op.saved:
                self.need(tensor)
            extra = op.extra_bytes + (2 * op.output.elements if op.full_precision and self.way.mixed else 0)
            if extra:
                copies.append(self.allocate(0, extra))
        kept[index] = copies
        for tensor in op.inputs:
            self.drop_reference(tensor)
        if not self.way.training:
            for key in copies:
                self.release(key)

    def backward(self, op: Op, index: int, gradients: dict[int, int], shares: Counter[int], first: int) -> int | None:
        """Gradients of an operation's inputs; returns the storage of its parameters' gradient."""
        gradient = gradients.pop(op.output.key)
        own: int | None = None
        if op.parameters:
            self.workspace(op.convolution, "weights")
            cast = self.allocate(2 * op.parameters) if self.way.mixed else None
            own = self.allocate(4 * op.parameters)
            if cast is not None:
                self.release(cast)
        passes_on = not op.saved and len(op.inputs) == 2 and op.inputs[0].elements == op.inputs[1].elements
        for tensor in op.inputs:
            if tensor.key == first:
                continue
            if passes_on:
                made = gradient
                shares[made] += 1
            else:
                self.workspace(op.convolution, "data")
                made = self.allocate(0, tensor.elements * self.element_bytes)
                shares[made] += 1
            if tensor.key in gradients:
                summed = self.allocate(0, tensor.elements * self.element_bytes)
                shares[summed] += 1
                self._let_go(made, shares)
                self._let_go(gradients[tensor.key], shares)
                gradients[tensor.key] = summed
            else:
                gradients[tensor.key] = made
        self._let_go(gradient, shares)
        for tensor in op.saved:
            self.drop_reference(tensor)
        return own

    def _let_go(self, key: int, shares: Counter[int]) -> None:
        shares[key] -= 1
        if not shares[key]:
            self.release(key)


def events(tape: Tape, way: StepConfig) -> list[AllocationEvent]:
    """All allocations from the weights' loading to the end of the last step."""
    steps = _StepRecorder(tape, way)
    for op in tape.ops:
        if op.parameters:
            steps.allocate(4 * op.parameters)
    gradients: list[int] = []
    batch: int | None = None
    first = tape.ops[0].inputs[0]
    for number in range(way.steps):
        newer = steps.allocate(0, 4 * first.elements)
        if batch is not None:
            steps.release(batch)
        batch = newer
        if not way.keeps_gradients:
            for key in gradients:
                steps.release(key)
            gradients = []
        made = _step(steps, first, batch)
        if way.keeps_gradients and gradients:
            for key in made:
                steps.release(key)
        else:
            gradients = made
        if way.training:
            _optimize(steps, initial=number == 0)
    return steps.events


def _step(steps: _StepRecorder, first: Tensor, batch: int) -> list[int]:
    tape = steps.tape
    uses = Counter(tensor.key for op in tape.ops for tensor in op.inputs)
    kept: dict[int, list[int]] = {}
    steps._storage = {first.key: batch}
    steps._needs = Counter({batch: uses[first.key] + 1})
    for index, op in enumerate(tape.ops):
        steps.forward(op, uses, kept, index)
    last = tape.ops[-1].output
    if not steps.way.training:
        if not steps._needs[steps._storage[last.key]]:
            steps.release(steps._storage[last.key])
        return []
    loss = steps.allocate(0, last.elements * 4)
    gradients, shares = {last.key: loss}, Counter({loss: 1})
    made = []
    for index in range(len(tape.ops) - 1, -1, -1):
        op = tape.ops[index]
        own = steps.backward(op, index, gradients, shares, first.key)
        if own is not None:
            made.append(own)
        for key in kept[index]:
            steps.release(key)
    if not steps._needs[steps._storage[last.key]]:
        steps.release(steps._storage[last.key])
    return made


def _optimize(steps: _StepRecorder, initial: bool) -> None:
    sizes = [4 * op.parameters for op in steps.tape.ops if op.parameters]
    if initial:
        for _ in range(steps.way.optimizer_slots):
            for size in sizes:
                steps.allocate(size)
    share = steps.way.optimizer_temporaries
    held = [steps.allocate(int(size * part)) for part in _parts(share) for size in sizes]
    for key in held:
        steps.release(key)


def _parts(share: float) -> Iterator[float]:
    while share > 0:
        yield min(1.0, share)
        share -= 1.0


def at_batch(
    all_events: list[AllocationEvent], batch: int, workspace: Callable[[Convolution, Pass, int], int]
) -> Iterator[tuple[int, int]]:
    """The events in bytes, for `allocator.replay`."""
    for event in all_events:
        if event.release:
            yield event.key, -1
        elif event.workspace is not None:
            yield event.key, workspace(*event.workspace, batch)
        else:
            yield event.key, event.fixed + event.per_sample * batch
