"""Launch commands that keep AReaL 1.0.x's short names: `python -m areal.launcher.{local,ray,slurm}`.

AReaL ships its launchers under `areal.infra.launcher`. These modules check the configuration before anything
starts, then delegate; the local one also supervises (see `supervisor.py`).
"""
