"""Watches the device's memory over the steps: peaks by size of a forward pass, and remedies before it runs out."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from gpu_advisor.training.memory.batch_size_proposal import proposal_text, propose_from_peaks
from gpu_advisor.training.memory.device_memory import DeviceMemory
from gpu_advisor.training.memory.remedies import Remedy, choose_remedies

if TYPE_CHECKING:
    from gpu_advisor.calibration.batch_size_advice import BatchSizeAdvice

#: Share of memory that a proposed batch size may use.
DEFAULT_TARGET_RATIO = 0.85

log = logging.getLogger(__name__)


class PeakWatch:
    """`peaks`: samples of a forward pass -> bytes; `remedies`: to apply before the next step."""

    def __init__(self, memory: DeviceMemory, threshold_ratio: float, check_every_steps: int) -> None:
        self.peaks: dict[int, int] = {}
        self.remedies: tuple[Remedy, ...] = ()
        self._memory = memory
        self._threshold_ratio = threshold_ratio
        self._check_every_steps = check_every_steps
        self._last_reading = memory.read()
        self._measured_size: int | None = None
        self._measured_limit: int | None = None
        self._steps = 0
        self._has_warned = False

    def begin(self, part_size: int, limit: int | None) -> None:
        """Reset the peak when the size changes. A smaller last batch of an epoch does not count as a change.

        part_size: samples of the largest forward pass. limit: the micro-batch size; None: the whole batch.
        """
        if self._measured_size is None or part_size > self._measured_size or limit != self._measured_limit:
            self._memory.reset_peak()
            self._measured_size, self._measured_limit = part_size, limit

    def check(self, part_size: int, can_checkpoint: bool) -> None:
        """After a successful step: choose remedies."""
        self._steps += 1
        if self._steps % self._check_every_steps and part_size in self.peaks:
            return
        reading = self._memory.read()
        if part_size == self._measured_size:
            self.peaks[part_size] = max(reading.peak_allocated_bytes, self.peaks.get(part_size, 0))
        self.remedies = choose_remedies(reading, self._last_reading, self._threshold_ratio, can_checkpoint)
        self._last_reading = reading
        if Remedy.EMPTY_CACHE in self.remedies:
            self._memory.empty_cache()
        if Remedy.SMALLER_BATCH in self.remedies and not self._has_warned:
            self._has_warned = True
            log.warning(
                "peak memory is %.0f %% of the limit, with a micro-batch size of %d; %s",
                100 * reading.peak_allocated_bytes / reading.limit_bytes,
                part_size,
                proposal_text(self.peaks, reading.limit_bytes, DEFAULT_TARGET_RATIO),
            )

    def restart(self) -> None:
        """After a change of the model's need: earlier peaks no longer apply."""
        self._measured_size = None
        self.peaks.clear()

    def propose(self, target_ratio: float, points: Mapping[int, int]) -> BatchSizeAdvice:
        """The largest batch size within the target, from these points and the peaks. Raises CalibrationError."""
        limit = self._memory.read().limit_bytes
        return propose_from_peaks({**points, **self.peaks}, limit, target_ratio, self._measured_size)
