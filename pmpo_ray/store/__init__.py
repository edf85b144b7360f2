"""The run folder: everything a run writes, and all that is needed to resume it."""

from pmpo_ray.store.documents import ClusterInfo, Manifest, PoolUse, data_hash, installed_versions
from pmpo_ray.store.folder import write_document
from pmpo_ray.store.lease import hold
from pmpo_ray.store.lease_record import Lease
from pmpo_ray.store.run_store import RunStore
from pmpo_ray.store.task_folder import task_folder

__all__ = [
    "ClusterInfo",
    "Lease",
    "Manifest",
    "PoolUse",
    "RunStore",
    "data_hash",
    "hold",
    "installed_versions",
    "task_folder",
    "write_document",
]
