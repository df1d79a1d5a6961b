"""What a GPU does with its time, and what it loses: step = data wait + copy + kernels + gaps + collective.

Truth is counterfactual. The loss to a cause is the time a step would be shorter by without it; the gain is how much
more work would be done. The cause of a situation is that with the greatest gain, and a situation is only drawn if that
gain is worth acting on and no other cause comes near it (`cause`). Nothing here is observed by anybody.
"""

from __future__ import annotations

from dataclasses import dataclass

#: A cause is worth acting on if without it a quarter more work would be done.
ACTIONABLE_RATIO = 0.25
#: Below this, a cause is what any real job has.
ORDINARY_RATIO = 0.13
#: Mixtures: a second cause has at most this share of the first one's gain.
SECOND_CAUSE_RATIO = 0.5
#: Kernels of large batches keep this share of the SMs busy; the rest is tails and launches.
FULL_SM_ACTIVITY = 0.75


@dataclass(frozen=True, slots=True)
class GpuStep:
    """One step of one GPU's work. Times in seconds at full clock; all other figures are shares, 0..1.

    kernels       computing kernels run; `fill`, `tensor`, `fp32`, `fp64`, `dram` hold while they do
    gaps          between kernels: the host launches no faster
    data_wait     the next batch is not ready
    copy          the batch is moved over PCIe, and nothing else can run
    collective    communication that nothing hides: its kernels run, on a few SMs
    absent        no work is asked for
    stalled       share of the kernels' time in which they wait for memory's bandwidth beyond what computing takes
    """

    kernels: float
    gaps: float = 0.0
    data_wait: float = 0.0
    copy: float = 0.0
    collective: float = 0.0
    absent: float = 0.0
    fill: float = 0.85
    tensor: float = 0.4
    fp32: float = 0.1
    fp64: float = 0.0
    dram: float = 0.45
    stalled: float = 0.0
    collective_fill: float = 0.15
    link_share: float = 0.6
    hidden_link_share: float = 0.1
    input_bytes_per_second: float = 3e8

    def seconds(self, clock: float = 1.0) -> float:
        """Length of the step at `clock`, a share of the full clock. What waits for memory does not feel the clock."""
        return self.own_seconds(clock) + self.collective

    def own_seconds(self, clock: float = 1.0) -> float:
        """Without what is shared with other GPUs."""
        return self.kernel_seconds(clock) + self.gaps + self.data_wait + self.copy + self.absent

    def kernel_seconds(self, clock: float = 1.0) -> float:
        return self.kernels * ((1 - self.stalled) / clock + self.stalled)


@dataclass(frozen=True, slots=True)
class Losses:
    """Seconds of a step that each cause costs."""

    data: float = 0.0
    batch: float = 0.0
    bandwidth: float = 0.0
    communication: float = 0.0
    clock: float = 0.0
    peer: float = 0.0

    def gains(self, step_seconds: float) -> dict[str, float]:
        """How much more work would be done without each cause, as a share."""
        named = {
            "data": self.data,
            "batch": self.batch,
            "bandwidth": self.bandwidth,
            "communication": self.communication,
            "clock": self.clock,
            "peer": self.peer,
        }
        return {name: step_seconds / max(step_seconds - lost, 1e-9) - 1 for name, lost in named.items()}


def losses(step: GpuStep, clock: float = 1.0, waits_for_peer: float = 0.0) -> Losses:
    """Of one step; `waits_for_peer` is the part of `step.collective` in which a slower GPU is waited for."""
    kernels = step.kernel_seconds(clock)
    underfilled = max(0.0, 1 - step.fill / FULL_SM_ACTIVITY)
    return Losses(
        data=step.data_wait + step.copy,
        batch=kernels * underfilled + step.gaps,
        bandwidth=step.kernels * step.stalled,
        communication=step.collective - waits_for_peer,
        clock=kernels - step.kernel_seconds(1.0),
        peer=waits_for_peer,
    )


def cause(step: GpuStep, clock: float = 1.0, waits_for_peer: float = 0.0) -> str | None:
    """The cause worth acting on, "none" for ordinary work, None where it is neither clear nor ordinary."""
    gains = losses(step, clock, waits_for_peer).gains(step.seconds(clock))
    (first, best), (_, second) = sorted(gains.items(), key=lambda item: -item[1])[:2]
    if best < ORDINARY_RATIO:
        return "none"
    return first if best >= ACTIONABLE_RATIO and second <= SECOND_CAUSE_RATIO * best else None


def power_share(step: GpuStep, clock: float = 1.0) -> float:
    """Power above idle, as a share of what the limit allows: what each busy part draws, in the mean over a step.

    Running at all takes a quarter (clocks and caches awake), SMs and their pipes the most, memory the rest. A tensor
    pipe that is full draws more than the limit allows, which is why a power cap at full load is normal.
    """
    seconds = step.seconds(clock)
    kernels, collective = step.kernel_seconds(clock) / seconds, step.collective / seconds
    busy = 0.22 + 0.33 * step.fill + 0.55 * step.tensor + 0.35 * (step.fp32 + 2 * step.fp64) * step.fill
    return kernels * (busy + 0.30 * step.dram) * (0.35 + 0.65 * clock**2) + collective * 0.38


def cap_clock(step: GpuStep, limit_share: float = 1.0) -> float:
    """The clock, as a share of the full one, that the power limit leaves while kernels run.

    Dynamic power goes with frequency times voltage squared, and voltage with frequency near the top.
    """
    alone = GpuStep(
        1.0, fill=step.fill, tensor=step.tensor, fp32=step.fp32, fp64=step.fp64, dram=step.dram, stalled=step.stalled
    )
    clock = 1.0
    while clock > 0.3 and power_share(alone, clock) > limit_share:
        clock -= 0.01
    return clock
