"""Owners on a real Slurm: jobs are submitted, run, attributed, end, are requeued and cancelled."""

from __future__ import annotations

from tests.slurm.cluster import SlurmCluster
from tests.slurm.node import SlurmNode

#: Writes the number of the process that will be on a GPU.
WORKER = "echo $$ > pid-{}; exec sleep 600"


def test_job_with_a_process_on_one_of_its_gpus(slurm: SlurmCluster, node: SlurmNode) -> None:
    job = slurm.submit("--nodelist=n1 --gres=gpu:2 --job-name='fine tune' --account=lab", WORKER.format("train"))
    pid = slurm.wait_pid("pid-train")
    node.run_on({1: [pid]})
    owner = {"kind": "slurm", "training_job": job, "user": "ada", "job_name": "fine tune", "partition": "gpu"}
    node.wait_owners({0: [owner | {"step": ""}], 1: [owner | {"step": "batch"}]})
    assert node.allocated() == {0: True, 1: True, 2: False, 3: False}
    slurm.run(f"scancel {job}", "ada")
    slurm.wait_state(job, "")
    node.wait_owners({})


def test_array_tasks(slurm: SlurmCluster, node: SlurmNode) -> None:
    array = slurm.submit("--nodelist=n1 --gres=gpu:1 --array=3-4", WORKER.format("task-$SLURM_ARRAY_TASK_ID"))
    first, second = slurm.wait_pid("pid-task-3"), slurm.wait_pid("pid-task-4")
    node.run_on({0: [first], 1: [second]})
    tasks = [{"array_task": f"{array}_{task}", "user": "ada", "step": "batch"} for task in (3, 4)]
    node.wait_owners({0: [tasks[0]], 1: [tasks[1]]})
    jobs = {owners[0]["training_job"] for owners in node.owners().values() if owners}
    assert len(jobs) == 2, "each task has a job id of its own"


def test_steps(slurm: SlurmCluster, node: SlurmNode) -> None:
    """Two steps side by side, each with one of the job's three GPUs; the third is idle."""
    step = "srun --exact --ntasks=1 --gres=gpu:1 sh -c '" + WORKER.format("$SLURM_STEP_ID") + "'"
    job = slurm.submit("--nodelist=n1 --gres=gpu:3 --ntasks=2", f"{step} & {step} & wait")
    pids = [slurm.wait_pid(f"pid-{number}") for number in range(2)]
    gpus = [int(slurm.variable(pid, "SLURM_STEP_GPUS")) for pid in pids]
    assert len(set(gpus)) == 2
    node.run_on({gpu: [pid] for gpu, pid in zip(gpus, pids, strict=True)})
    (idle,) = set(range(3)) - set(gpus)
    node.wait_owners({
        gpus[0]: [{"training_job": job, "step": "0"}],
        gpus[1]: [{"training_job": job, "step": "1"}],
        idle: [{"training_job": job, "step": ""}],
    })  # fmt: skip


def test_two_jobs_of_one_user_on_one_gpu(slurm: SlurmCluster, node: SlurmNode) -> None:
    jobs = [slurm.submit("--nodelist=n1 --gres=shard:1", WORKER.format(f"shard{i}")) for i in range(2)]
    pids = [slurm.wait_pid(f"pid-shard{i}") for i in range(2)]
    gpus = {int(slurm.variable(pid, "SLURM_JOB_GPUS")) for pid in pids}
    assert len(gpus) == 1, "Slurm packs shards"
    (gpu,) = gpus
    node.run_on({gpu: pids})
    node.wait_owners({gpu: [{"training_job": job, "user": "ada", "step": "batch"} for job in jobs]})
    node.run_on({gpu: pids[:1]})
    node.wait_owners({gpu: [{"training_job": jobs[0], "step": "batch"}, {"training_job": jobs[1], "step": ""}]})


def test_allocation_without_any_process(slurm: SlurmCluster, node: SlurmNode) -> None:
    """salloc without a step: there is no cgroup, only the controller knows."""
    slurm.run("salloc --no-shell --nodelist=n1 --gres=gpu:1 --job-name=reserved 2>&1", "bob")
    job = slurm.run("squeue --noheader --name=reserved --format=%A")
    node.wait_owners({0: [{"kind": "slurm", "training_job": job, "user": "bob", "job_name": "reserved"}]})
    assert node.allocated() == {0: True, 1: False, 2: False, 3: False}


def test_requeued_job(slurm: SlurmCluster, node: SlurmNode) -> None:
    """It keeps its number and may get another GPU: here another job has taken the first."""
    job = slurm.submit("--nodelist=n1 --gres=gpu:1 --requeue", WORKER.format("again"))
    node.wait_owners({0: [{"training_job": job}]})
    slurm.wait_pid("pid-again")
    slurm.run(f"scontrol requeuehold {job}")
    slurm.wait_state(job, "PENDING")
    node.wait_owners({})
    other = slurm.submit("--nodelist=n1 --gres=gpu:1", user="bob")
    node.wait_owners({0: [{"training_job": other, "user": "bob"}]})
    slurm.run(f"scontrol release {job}")
    slurm.run(f"scontrol update JobId={job} StartTime=now")
    node.wait_owners({0: [{"training_job": other}], 1: [{"training_job": job, "user": "ada"}]})


def test_cpu_job_has_no_gpu(slurm: SlurmCluster, node: SlurmNode) -> None:
    slurm.submit("--nodelist=n1", WORKER.format("cpu"))
    slurm.wait_pid("pid-cpu")
    node.wait_owners({})
    assert not any(node.allocated().values())
