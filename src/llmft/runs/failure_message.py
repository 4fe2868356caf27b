"""The message after a failure from outside (full disk, killed process): what happened, what is kept, how to continue."""

import errno
import re

from llmft.config.schema import TrainConfig
from llmft.runs.checkpoint_io import load
from llmft.runs.directory import RunDirectory
from llmft.utils.errors import UserError, as_os_error, chain
from llmft.utils.shell import argument

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
OF_DISKS = (*NO_ROOM, errno.EROFS, errno.EIO, errno.ESTALE)
# torch has two messages, depending on where the main process was when the worker died
WORKER = re.compile(r"DataLoader worker \(pid.*?\) (?:is killed by signal: (\w+)|exited unexpectedly)")


def explain_failure(error: BaseException, run: RunDirectory, cfg: TrainConfig) -> UserError | None:
    """The error to show, or None for another kind of failure.

    Args:
        error: The exception that ended the training.
        run: Its run directory.
        cfg: Its config.
    """
    if isinstance(error, RuntimeError) and (worker := WORKER.search(str(error))):
        how = f"was killed ({worker[1]})" if worker[1] else "was killed"
        return UserError(
            f"data.num_workers={cfg.data.num_workers}: a loader worker {how}, probably out of memory; {kept(run)}. "
            f"Try data.num_workers=0: {resume_option(run)} data.num_workers=0"
        )
    # libraries raise errors of their own after one of the disk
    of_disks = (found for e in chain(error) if (found := as_os_error(e)) and (e is error or found.errno in OF_DISKS))
    found = None if isinstance(error, UserError) else next(of_disks, None)
    if found is None or isinstance(found, ConnectionError) or found.errno is None:
        return None
    file, reason = found.filename or run.path, found.strerror
    if found.errno in NO_ROOM:
        return UserError(
            f"{file}: could not be written ({reason}); {kept(run)}. Free some space and continue with {resume_option(run)}"
        )
    return UserError(f"{file}: {reason}; {kept(run)}. Fix that and continue with {resume_option(run)}")


def kept(run: RunDirectory) -> str:
    """The last saved state, in words."""
    if run.checkpoint is None:
        return "there is no checkpoint yet"
    try:
        return f"the checkpoint of step {load(run.checkpoint)['global_step']} is kept"
    except UserError:
        return "the last checkpoint is kept"


def resume_option(run: RunDirectory) -> str:
    """The option that resumes the run."""
    return argument("resume", str(run.path))


def go_on(run: RunDirectory) -> str:
    """How a run that was interrupted goes on: the command line, and what it is for."""
    if "after" in (run.record.get("metrics") or {}) and run.model.is_dir():  # publish() writes it behind the model
        command = f"python -m llmft evaluate {argument('run', str(run.path))}"
        return f"the training is complete and its model is saved; to evaluate it: {command}"
    return f"to resume: {resume_command(run)}"


def resume_command(run: RunDirectory) -> str:
    """The command line that resumes the run, quoted for a shell."""
    return f"python -m llmft {resume_option(run)}"
