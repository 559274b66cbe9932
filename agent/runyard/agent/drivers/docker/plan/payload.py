"""Files that are put into a container before it starts: programs, and the worker's arguments.

The arguments hold the storage configuration, passwords and all. In the command or the environment every user
could read them who may look at a container; as a file that is handed over through the engine's API they need
no folder that agent and engine share, are gone once the worker has begun, and may be of any size.
"""

import io
import tarfile
from pathlib import Path

from runyard.agent.drivers.docker import enter
from runyard.agent.supervisor import worker

ARGUMENTS = "args"
"""Name of the file with the worker's arguments."""

_FOLDER_MODE = 0o777  # any user of the image must be able to remove the arguments
_FILE_MODE = 0o444


def archive(worker_args: str, folder: str) -> bytes:
    """A tar archive of the files.

    Args:
        worker_args: The worker's arguments.
        folder: Name of the folder in the archive that holds them; empty if it is extracted there.
    """
    files = {
        "enter.py": Path(enter.__file__).read_bytes(),
        "worker.py": Path(worker.__file__).read_bytes(),
        ARGUMENTS: worker_args.encode(),
    }
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        entry = tarfile.TarInfo(folder or ".")
        entry.type, entry.mode = tarfile.DIRTYPE, _FOLDER_MODE
        tar.addfile(entry)
        for name, content in files.items():
            entry = tarfile.TarInfo(f"{folder}/{name}" if folder else name)
            entry.size, entry.mode = len(content), _FILE_MODE
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()
