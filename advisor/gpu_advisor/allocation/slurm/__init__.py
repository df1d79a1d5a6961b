"""GPUs on a Slurm cluster: Slurm schedules; a request becomes an sbatch line."""
