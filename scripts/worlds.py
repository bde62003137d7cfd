"""Install from Debian what the worlds need, and fail if one stays missing. `make worlds` runs this.

TORCS and OpenGL come through apt-get. Where that is not to be had they are skipped, and the reason is printed.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from asyncrl.worlds import World, as_text, list_worlds


def main() -> int:
    """Install, list; return 1 if a world that something would install is still missing, in CI any world."""
    skipped = install_debian(list_worlds())
    worlds = list_worlds()
    for world in worlds:
        print(as_text(world))
    # Whoever uses this does without a world that his system cannot have; a CI that lost one should not look whole.
    strict = bool(os.environ.get("CI"))
    left = [w.name for w in worlds if w.missing and w.name not in skipped and (w.install or strict)]
    if left:
        print(f"asyncrl: still missing: {', '.join(left)}", file=sys.stderr)
    return 1 if left else 0


def install_debian(worlds: list[World]) -> list[str]:
    """Run the commands that want apt-get; return the names of the worlds that were skipped."""
    wanting = [world for world in worlds if world.missing and "apt-get" in world.install]
    reason = why_not_apt()
    if reason:
        for world in wanting:
            print(f"asyncrl: skipped {world.name}, because {reason}")
        return [world.name for world in wanting]
    for command in dict.fromkeys(world.install for world in wanting):
        here = str(Path(sys.executable).parent)  # `python` in it is this one
        variables = {
            **os.environ,
            "PATH": f"{here}{os.pathsep}{os.environ['PATH']}",
            "DEBIAN_FRONTEND": "noninteractive",
        }
        # Safe to give to a shell: commands are constants of asyncrl.worlds, but for the path of this very Python, which
        # is quoted there; nothing of them comes from outside.
        subprocess.run(command, shell=True, check=False, env=variables, stdin=subprocess.DEVNULL)
    return []


def why_not_apt() -> str:
    """Return why apt-get cannot be used here, or ""."""
    if shutil.which("apt-get") is None:
        return "there is no apt-get here"
    return "" if os.geteuid() == 0 else "only root may use apt-get"


if __name__ == "__main__":
    sys.exit(main())
