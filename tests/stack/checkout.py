"""Copies of this checkout, with what is not committed yet, as a clean clone would have it."""
import shutil
import subprocess

from .process import ROOT


def copy_checkout(target):
    """Copies the files that git knows or would know."""
    command = ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
