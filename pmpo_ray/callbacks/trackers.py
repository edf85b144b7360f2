"""Trackers: callbacks that log a run to MLflow, Weights & Biases or TensorBoard.

Invariants: a tracker whose package is missing is refused before the run starts; importing this module imports
none of these packages, which each tracker does when its run starts.
"""

from __future__ import annotations

from importlib.util import find_spec

from pmpo_ray.callbacks.dispatch import Callback
from pmpo_ray.config.tracking import MlflowConfig, TensorboardConfig, TrackingConfig, WandbConfig
from pmpo_ray.errors import ConfigError
from pmpo_ray.store.folder import Folder


def trackers(config: TrackingConfig, run_dir: str) -> tuple[Callback, ...]:
    """The trackers that are switched on, for the run in `run_dir`.

    Raises ConfigError if a package is missing, or if TensorBoard has no folder on this machine.
    """
    sections = (config.mlflow, config.wandb, config.tensorboard)
    return tuple(tracker_for(settings, run_dir) for settings in sections if settings is not None)


def tracker_for(settings: MlflowConfig | WandbConfig | TensorboardConfig, run_dir: str) -> Callback:
    """The tracker of one section of the configuration; errors as in `trackers`."""
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

            return TensorboardTracker(settings.log_dir or _folder_in(run_dir))


def _require(package: str) -> None:
    # A folder of that name in the working directory, such as wandb's own, has a spec without an origin.
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ConfigError(f"tracking: {package} is not installed; pip install 'pmpo-ray[{package}]'")


def _folder_in(run_dir: str) -> str:
    path = Folder(run_dir).local_path("tensorboard")
    if path is None:
        raise ConfigError(
            "tracking.tensorboard.log_dir: required, since the run folder is not on this machine's disk"
        )
    return str(path)
