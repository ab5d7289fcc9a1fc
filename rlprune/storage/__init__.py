"""Run folders on object stores: ``s3://bucket/prefix``, and whatever else pyarrow and fsspec know.

The driver works in a folder of its own machine and after each change uploads what has changed: it is the only
writer of the run. Trials write their own checkpoints, below ``tune/``, straight to the store. So any machine
may be lost, the driver's included, and no machine needs a file of another one's disk.
"""

from rlprune.storage.mirror import Mirror
from rlprune.storage.places import is_url, joined, local_path, shown
from rlprune.storage.remote import TRIALS_OWN, RemoteFolder, download_run, fetched, run_files

__all__ = [
    "TRIALS_OWN",
    "Mirror",
    "RemoteFolder",
    "download_run",
    "fetched",
    "is_url",
    "joined",
    "local_path",
    "run_files",
    "shown",
]
