"""The folder of the user in which this project keeps what can be made again: `DIFFATLAS_HOME`, or the
user's cache folder.
"""

import os
from pathlib import Path


def home() -> Path:
    """Where temporary servers keep their databases and readers the tables of snapshots; it need not
    be there.
    """
    configured = os.environ.get("DIFFATLAS_HOME")
    if configured:
        return Path(configured).expanduser().absolute()
    import platformdirs

    return platformdirs.user_cache_path("diffatlas")
