"""PrefetchLoader yields every batch once, in order, of any structure and however the loop ends. CUDA: tests/gpu."""

from __future__ import annotations

from collections import OrderedDict, UserDict, namedtuple
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from gpu_advisor.training.loaders.nested import map_leaves
from gpu_advisor.training.loaders.prefetch import PrefetchLoader
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils.rnn import PackedSequence, pack_sequence

Pair = namedtuple("Pair", ["x", "y"])


@dataclass
class NamedSample:
    x: Any
    name: str = "a"


class NumberedLoader:
    """Numbered batches; batch `fails_at` raises instead."""

    def __init__(self, count: int, fails_at: int | None = None, make: Any = lambda number: number) -> None:
        self.count, self.fails_at, self.make = count, fails_at, make
        self.taken = 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Any]:
        for number in range(self.count):
            if number == self.fails_at:
                raise OSError(f"batch {number} is gone")
            self.taken = number + 1
            yield self.make(number)


leaves = st.builds(torch.tensor, st.lists(st.integers(-9, 9), max_size=3)) | st.none() | st.integers() | st.text()
nested = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3).map(OrderedDict)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3).map(UserDict)
        | st.builds(Pair, inner, inner)
        | st.builds(NamedSample, inner)
    ),
    max_leaves=8,
)


def same(one: Any, other: Any) -> bool:
    """Same containers, same tensors."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if type(one) is not type(other):
        return False
    if isinstance(one, dict | UserDict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, NamedSample):
        return same((one.x, one.name), (other.x, other.name))
    return bool(one == other)


@given(st.lists(nested, max_size=6), st.integers(1, 4))
def test_batches_are_what_they_were(batches, depth):
    delivered = list(PrefetchLoader(batches, "cpu", depth=depth))
    assert len(delivered) == len(batches)
    assert all(map(same, batches, delivered))


@given(nested)
def test_every_leaf_is_reached_once_and_containers_stay(batch):
    seen: list[Any] = []

    def see(leaf: Any) -> Any:
        seen.append(leaf)
        return leaf

    assert same(map_leaves(batch, see), batch)
    moved = map_leaves(batch, lambda leaf: leaf.to("meta") if isinstance(leaf, torch.Tensor) else leaf)
    before, seen = seen, []
    map_leaves(moved, see)
    assert [isinstance(leaf, torch.Tensor) and leaf.is_meta for leaf in seen] == [
        isinstance(leaf, torch.Tensor) for leaf in before
    ]


@settings(deadline=None)
@given(
    count=st.integers(0, 12), depth=st.integers(1, 5), layers=st.integers(1, 3),
    fails_at=st.none() | st.integers(0, 12), stops_after=st.none() | st.integers(0, 12),
)  # fmt: skip
def test_once_and_in_order_until_error_or_stop(count, depth, layers, fails_at, stops_after):
    inner = NumberedLoader(count, fails_at)
    loader: Any = inner
    for _ in range(layers):
        loader = PrefetchLoader(loader, "cpu", depth=depth)
    expected = list(range(count if fails_at is None else min(fails_at, count)))
    for _ in range(2):  # it can be iterated again
        got: list[int] = []
        error = None
        try:
            for batch in loader:
                if stops_after is not None and len(got) == stops_after:
                    break
                got.append(batch)
        except OSError as raised:
            error = raised
        reached = stops_after is None or stops_after >= len(expected)
        assert got == (expected if reached else expected[:stops_after])
        assert (error is not None) == (reached and fails_at is not None and fails_at < count)
    assert len(loader) == count


def test_it_looks_ahead_by_its_depth_and_no_further():
    inner = NumberedLoader(10)
    batches = iter(PrefetchLoader(inner, "cpu", depth=2))
    assert inner.taken == 0, "nothing must be fetched before the first request"
    assert next(batches) == 0
    assert inner.taken == 3


def test_an_interrupt_is_raised_at_once():
    class Interrupted(NumberedLoader):
        def __iter__(self) -> Iterator[Any]:
            yield 0
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(iter(PrefetchLoader(Interrupted(2), "cpu")))


def test_errors_of_its_own():
    with pytest.raises(ValueError, match="use the loader itself"):
        PrefetchLoader([1], depth=0)
    with pytest.raises(TypeError, match="has no length"):
        len(PrefetchLoader(iter([1])))


def test_objects_with_a_to_method_are_moved_whole():
    packed = pack_sequence([torch.ones(3), torch.ones(2)])
    [delivered] = PrefetchLoader([packed], "meta")
    assert isinstance(delivered, PackedSequence)
    assert delivered.data.device.type == "meta"


def test_the_loaders_attributes_are_passed_on():
    class Sampler(torch.utils.data.SequentialSampler):
        epoch = 0

        def set_epoch(self, epoch: int) -> None:
            self.epoch = epoch

    numbers = torch.utils.data.TensorDataset(torch.arange(10))
    sampler = Sampler(numbers)
    loader = PrefetchLoader(torch.utils.data.DataLoader(numbers, 4, sampler=sampler), "cpu")
    assert (loader.dataset, loader.sampler, loader.batch_size) == (numbers, sampler, 4)
    loader.set_epoch(3)
    assert sampler.epoch == 3
    with pytest.raises(AttributeError, match="nothing_like_it"):
        loader.nothing_like_it  # noqa: B018


class ResumableLoader(NumberedLoader):
    """As torchdata's StatefulDataLoader: its state is the number of batches that it has yielded."""

    def __init__(self, count: int, fails_at: int | None = None) -> None:
        super().__init__(count, fails_at)
        self.state = {"taken": 0}

    def __iter__(self) -> Iterator[Any]:
        for number in range(self.state["taken"], self.count):
            if number == self.fails_at:
                raise OSError("disk")
            self.state["taken"] = number + 1
            yield number
        self.state["taken"] = 0

    def state_dict(self) -> dict[str, int]:
        return self.state

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.state = dict(state)


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("yielded", [0, 1, 4, 9, 10])
def test_a_loader_resumes_after_the_batch_that_was_yielded_last(depth: int, yielded: int) -> None:
    loader = PrefetchLoader(ResumableLoader(10), depth=depth)
    batches = iter(loader)
    seen = [next(batches) for _ in range(yielded)]
    saved = loader.state_dict()
    seen += list(batches)
    resumed = PrefetchLoader(ResumableLoader(10), depth=depth)
    resumed.load_state_dict(saved)
    assert seen == list(range(10))
    assert list(resumed) == list(range(yielded, 10))
    assert loader.state_dict() == {"taken": 0}  # after the epoch, its own


def test_a_loaded_state_replaces_that_of_an_epoch_that_was_left() -> None:
    loader = PrefetchLoader(ResumableLoader(10))
    batches = iter(loader)
    next(batches)
    saved = loader.state_dict()
    next(batches)
    loader.load_state_dict(saved)
    assert loader.state_dict() == saved == {"taken": 1}
    assert list(loader) == list(range(1, 10))


@pytest.mark.parametrize("name", ["state_dict", "load_state_dict"])
def test_a_loader_that_cannot_be_resumed_has_no_state(name: str) -> None:
    assert not hasattr(PrefetchLoader(NumberedLoader(3)), name)


def test_after_an_error_the_state_is_of_the_batches_before_it() -> None:
    loader = PrefetchLoader(ResumableLoader(10, fails_at=4), depth=2)
    with pytest.raises(OSError, match="disk"):
        list(loader)
    assert loader.state_dict() == {"taken": 4}
