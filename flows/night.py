"""Keep the history of nightly runs: commit what describes them to a branch, and push.

That is dvc.lock, params.yaml, reports/, and in data/raw sources.csv and the *.dvc files.

The branch is written without touching the working tree, the index or the branch that is checked out. Its
commits have the checked-out commit and the night before as parents, so that `git checkout` of a night, then
`dvc checkout`, gives its code, data, models and reports.
"""

import os
import subprocess
import tempfile
from datetime import datetime
from pathlib import Path

from commands import DVC, RETRY, CommandFailed, run_command, run_log
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.states import State

from secondeye.system.errors import UserError

KEPT = ("dvc.lock", "params.yaml", "reports", "data/raw/sources.csv", "data/raw/*.dvc")
_AUTHOR = {  # for a repository in which git knows nobody
    f"GIT_{role}_{field}": value
    for role in ("AUTHOR", "COMMITTER")
    for field, value in (("NAME", "secondeye"), ("EMAIL", "secondeye@localhost"))
}


def _is_push(task: object, task_run: object, state: State) -> bool:
    return isinstance(state.data, CommandFailed)


@task(cache_policy=NO_CACHE, task_run_name="commit to branch {branch}")
def keep_night(branch: str, what: str) -> None:
    """Commit what a flow has made to a branch.

    Raises UserError if this is not a Git repository with a commit, and if the branch is checked out.
    """
    commit = commit_night(branch, f"{what}, {datetime.now().astimezone():%Y-%m-%d %H:%M %Z}")
    run_log()(f"{branch}: {commit[:12]}")


@task(
    cache_policy=NO_CACHE,
    task_run_name="push branch {branch}",
    **(RETRY | {"retry_condition_fn": _is_push}),
)
def push_night(branch: str) -> None:
    """Push data and branch to the remotes, if there are any. Other flows may work meanwhile.

    Raises UserError if a push fails; the next night pushes what is missing.
    """
    log = run_log()
    if _lines([*DVC, "remote", "list"]):
        run_command([*DVC, "push"], log)
    if remote := _remote():
        run_command(["git", "push", remote, f"refs/heads/{branch}"], log)


def commit_night(branch: str, message: str) -> str:
    """Commit the files of `KEPT` on top of the checked-out commit; return the commit.

    The branch is created if it is missing. A night that changed nothing makes no commit.
    """
    git(["check-ref-format", "--branch", branch])
    head = git(["rev-parse", "--verify", "HEAD^{commit}"])
    if _try_git(["symbolic-ref", "--quiet", "HEAD"]) == f"refs/heads/{branch}":
        raise UserError(f"branch {branch} is checked out; name another one for the history of nights")
    last = _try_git(["rev-parse", "--verify", "--quiet", f"refs/heads/{branch}^{{commit}}"])
    # A fresh clone continues the history of the remote.
    if last is None and (remote := _remote()) and _try_git(["fetch", "--quiet", remote, branch]) is not None:
        git(["branch", "--no-track", branch, "FETCH_HEAD"])
        last = git(["rev-parse", branch])
    with tempfile.TemporaryDirectory() as temporary:
        index = {"GIT_INDEX_FILE": str(Path(temporary) / "index")}
        git(["read-tree", head], index)
        kept = [str(path) for pattern in KEPT for path in sorted(Path().glob(pattern))]
        git(["add", "--force", "--", *kept], index)
        tree = git(["write-tree"], index)
    if last and tree == git(["rev-parse", f"{last}^{{tree}}"]):
        return last
    parents = [parent for parent in (last, head) if parent]
    if last and _try_git(["merge-base", "--is-ancestor", head, last]) is not None:
        parents = [last]
    arguments = [argument for parent in parents for argument in ("-p", parent)]
    author = {} if _try_git(["var", "GIT_COMMITTER_IDENT"]) else _AUTHOR
    commit = git(["commit-tree", tree, *arguments, "-m", message], author)
    git(["update-ref", f"refs/heads/{branch}", commit, last or "0" * 40])
    return commit


def git(arguments: list[str], variables: dict[str, str] | None = None) -> str:
    """Return the output of a Git command. Raises UserError with its last line if it fails."""
    done = subprocess.run(
        ["git", *arguments], capture_output=True, text=True, env=os.environ | (variables or {})
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise UserError(f"`git {arguments[0]}` failed: {reason}")
    return done.stdout.strip()


def _try_git(arguments: list[str]) -> str | None:
    """Return the output of a Git command; None if it fails."""
    try:
        return git(arguments)
    except UserError:
        return None


def _remote() -> str:
    """Return origin, else the first remote; "" if there is none."""
    remotes = git(["remote"]).split()
    return "origin" if "origin" in remotes else (remotes or [""])[0]


def _lines(command: list[str]) -> list[str]:
    found: list[str] = []
    run_command(command, found.append)
    return [line.split()[0] for line in found]
