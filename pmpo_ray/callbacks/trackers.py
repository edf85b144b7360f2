"""Trackers: callbacks that show a run in MLflow, Weights & Biases or TensorBoard.

Invariants: a tracker whose package is missing is refused before the run starts; importing this package
imports none of theirs, which each tracker does when its run begins.
"""

from __future__ import annotations

from importlib.util import find_spec

from pmpo_ray.callbacks.dispatch import Callback
from pmpo_ray.config.tracking import MlflowConfig, TensorboardConfig, TrackingConfig, WandbConfig
from pmpo_ray.errors import ConfigError
from pmpo_ray.store.folder import Folder


def trackers(config: TrackingConfig, run_dir: str) -> tuple[Callback, ...]:
    """The trackers that are switched on, for the run in `run_dir`.

    Raises ConfigError where a package is missing, or no folder on this machine is known for TensorBoard.
    """
    chosen = (config.mlflow, config.wandb, config.tensorboard)
    return tuple(tracker_for(settings, run_dir) for settings in chosen if settings is not None)


def tracker_for(settings: MlflowConfig | WandbConfig | TensorboardConfig, run_dir: str) -> Callback:
    """One tracker; errors as in `trackers`."""
    match settings:
        case MlflowConfig():
            _require("mlflow")
            from pmpo_ray.callbacks.mlflow import MlflowTracker

            return MlflowTracker(settings)
        case WandbConfig():
            _require("wandb")
            from pmpo_ray.callbacks.wandb import WandbTracker

            return WandbTracker(settings)
        case TensorboardConfig():
            _require("tensorboard")
            from pmpo_ray.callbacks.tensorboard import TensorboardTracker

            return TensorboardTracker(settings.log_dir or _beside(run_dir))


def _require(package: str) -> None:
    # A folder of that name, as wandb leaves in the working directory, would be found, but has no origin.
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ConfigError(f"tracking: {package} is not installed; pip install 'pmpo-ray[{package}]'")


def _beside(run_dir: str) -> str:
    path = Folder(run_dir).local_path("tensorboard")
    if path is None:
        raise ConfigError(
            "tracking.tensorboard.log_dir: has to be given where the run folder is not on this machine's disk"
        )
    return str(path)
