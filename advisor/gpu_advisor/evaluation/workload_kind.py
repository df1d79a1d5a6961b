"""Whether GPUs train or serve, where the settings do not say: from jobs, inference servers and owners. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from gpu_advisor.evaluation.facts import Facts, Gpu
from gpu_advisor.evaluation.owners import GpuOwner
from gpu_advisor.evaluation.signals import JOB_STEP_TIME
from gpu_advisor.settings.pools import PoolKind

#: The kind of a workload by the controller of its pods. A StatefulSet may be either, and a DaemonSet is neither.
#: https://kubernetes.io/docs/concepts/workloads/controllers/ https://www.kubeflow.org/docs/components/trainer/
#: https://kserve.github.io/website/ https://lws.sigs.k8s.io/docs/ https://docs.ray.io/en/latest/cluster/kubernetes/
CONTROLLER_KINDS: Mapping[str, PoolKind] = {
    **dict.fromkeys(
        ("Job", "PyTorchJob", "TFJob", "MPIJob", "JAXJob", "PaddleJob", "XGBoostJob", "TrainJob", "RayJob"), "training"
    ),
    **dict.fromkeys(("Deployment", "ReplicaSet", "InferenceService", "LeaderWorkerSet", "RayService"), "serving"),
}

#: The end of a pod's name, by what made it. Random parts are of this alphabet:
#: https://github.com/kubernetes/apimachinery/blob/master/pkg/util/rand/rand.go (alphanums). Kubeflow numbers the
#: replicas of a job's roles: https://www.kubeflow.org/docs/components/trainer/legacy-v1/user-guides/pytorch/
_SAFE = "[bcdfghjklmnpqrstvwxz2456789]"
POD_NAMES: tuple[tuple[re.Pattern[str], PoolKind, str], ...] = (
    (re.compile(rf".*-{_SAFE}{{8,10}}-{_SAFE}{{5}}"), "serving", "pods of a Deployment, by their names"),
    (re.compile(r".*-(master|worker|launcher|chief)-\d+"), "training", "pods of a training operator, by their names"),
)

#: Inference servers by their usual names of containers, units and pods.
SERVERS = re.compile(
    r"(?i)(?<![a-z])(vllm|sglang|tgi|text-generation-inference|text-embeddings-inference|tritonserver|triton-server|"
    r"trtllm|tensorrt-?llm|torchserve|lmdeploy|ollama|llama-server)(?![a-z])"
)

#: The least share of a pool's GPUs with an owner whose kind is known, to infer that of the pool.
MIN_KNOWN_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class InferredKind:
    """The kind of a pool or a GPU, and what it follows from; `undecided` without evidence, or if it conflicts."""

    kind: PoolKind = "undecided"
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PoolInference:
    """The inferred kind of a pool, and those of its GPUs: a pool may be of both."""

    pool: InferredKind = InferredKind()
    gpus: Mapping[str, InferredKind] = field(default_factory=dict)

    def kind_of(self, gpu: Gpu) -> PoolKind:
        return self.gpus.get(gpu.uuid, self.pool).kind


def infer_kinds(facts: Facts, gpus: Iterable[Gpu]) -> PoolInference:
    """GPUs without evidence have the kind of the pool, which is that of all with evidence, if they are enough."""
    titles = facts.serving.titles
    servers = {uuid: titles.get(each.server, each.server) for each in facts.serving.replicas for uuid in each.gpus}
    observed = list(gpus)
    clues = {gpu.uuid: tuple(dict.fromkeys(_clues(facts, gpu, servers))) for gpu in observed}
    by_gpu = {uuid: _combine(found) for uuid, found in clues.items() if found}
    used = [gpu for gpu in observed if clues[gpu.uuid] or facts.owners.get(gpu.uuid)]
    kinds = {each.kind for each in by_gpu.values()}
    if len(kinds) != 1 or len(by_gpu) < MIN_KNOWN_SHARE * len(used):
        return PoolInference(gpus=by_gpu)
    counts = Counter(text for found in clues.values() for _, text in found)
    evidence = tuple(f"{count} of {len(observed)} GPUs: {text}" for text, count in counts.most_common())
    return PoolInference(InferredKind(kinds.pop(), evidence), by_gpu)


def _combine(clues: Collection[tuple[PoolKind, str]]) -> InferredKind:
    kinds = {kind for kind, _ in clues}
    return InferredKind(kinds.pop() if len(kinds) == 1 else "undecided", tuple(text for _, text in clues))


def _clues(facts: Facts, gpu: Gpu, servers: Mapping[str, str]) -> Iterator[tuple[PoolKind, str]]:
    """Kinds, and where each follows from."""
    if facts.value(JOB_STEP_TIME, gpu.uuid) is not None:
        yield "training", "a job reports training steps"
    if gpu.uuid in servers:
        yield "serving", f"metrics of an inference server ({servers[gpu.uuid]})"
    for owner in facts.owners.get(gpu.uuid, ()):
        yield from _owner_clues(owner)


def _owner_clues(owner: GpuOwner) -> Iterator[tuple[PoolKind, str]]:
    if owner.job:
        yield "training", "the owner is a training job"
    named = next((found for name in (owner.container, owner.unit, owner.pod) if (found := SERVERS.search(name))), None)
    if named:
        yield "serving", f"the owner is named after an inference server ({named[0].lower()})"
    if owner.controller is not None:
        kind = CONTROLLER_KINDS.get(owner.controller.kind)
        if kind:
            yield kind, f"pods of a {owner.controller.kind}"
    elif owner.pod:
        yield from ((kind, text) for pattern, kind, text in POD_NAMES if pattern.fullmatch(owner.pod))
