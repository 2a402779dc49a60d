"""Files of jobs for a recipe: what Docker, Slurm or Kubernetes need to run it, and to run it again after an interruption."""
