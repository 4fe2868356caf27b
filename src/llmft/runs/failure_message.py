"""What ended a training from outside (a full disk, a killed process) -> one message: what happened, what is kept, the way on."""

import errno
import re
from typing import Any

from llmft.runs.directory import RunDirectory
from llmft.utils.errors import UserError, chain

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
OF_DISKS = (*NO_ROOM, errno.EROFS, errno.EIO, errno.ESTALE)
# torch says it in one of two ways, by where the main process was when the worker died
WORKER = re.compile(r"DataLoader worker \(pid.*?\) (?:is killed by signal: (\w+)|exited unexpectedly)")


def explain_failure(error: BaseException, run: RunDirectory, cfg: Any) -> UserError | None:
    """The message, or None where it is another kind of error.

    Args:
        error: What ended the training.
        run: Where it was writing.
        cfg: Of the training.
    """
    if isinstance(error, RuntimeError) and (worker := WORKER.search(str(error))):
        how = f"was killed ({worker[1]})" if worker[1] else "was killed"
        return UserError(
            f"data.num_workers={cfg.data.num_workers}: a loader worker {how}, mostly for want of memory; {kept(run)}. "
            f"Try data.num_workers=0: {way_on(run)} data.num_workers=0"
        )
    # libraries end with errors of their own after one of the disk
    of_disks = (e for e in chain(error) if isinstance(e, OSError) and (e is error or e.errno in OF_DISKS))
    found = None if isinstance(error, UserError) else next(of_disks, None)
    if found is None or isinstance(found, ConnectionError) or found.errno is None:
        return None
    file, reason = found.filename or run.path, found.strerror
    if found.errno in NO_ROOM:
        return UserError(
            f"{file}: could not be written ({reason}); {kept(run)}. Free some space and continue with {way_on(run)}"
        )
    return UserError(f"{file}: {reason}; {kept(run)}. Mend that and go on with {way_on(run)}")


def kept(run: RunDirectory) -> str:
    """The last good state, in words."""
    if run.checkpoint is None:
        return "there is no checkpoint yet"
    from llmft.runs.checkpoint_io import load

    try:
        return f"the checkpoint of step {load(run.checkpoint)['global_step']} is kept"
    except UserError:
        return "the last checkpoint is kept"


def way_on(run: RunDirectory) -> str:
    """The option that goes on."""
    return f"resume={run.path}"
