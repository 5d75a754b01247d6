"""The drain mark: a file in the run directory that says "send no more here".

`whatsapp-webhook drain` sets it, the server looks at it, the next start removes it.
"""

from pathlib import Path


def mark(run_dir: Path) -> None:
    """Say that this instance is draining; raises OSError where the directory can't be written."""
    _path(run_dir).touch()


def clear(run_dir: Path) -> None:
    """Forget a mark that an earlier start left behind."""
    _path(run_dir).unlink(missing_ok=True)


def is_marked(run_dir: Path) -> bool:
    """Say whether the instance is draining."""
    return _path(run_dir).exists()


def _path(run_dir: Path) -> Path:
    return run_dir / "draining"
