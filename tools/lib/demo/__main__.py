"""The entry of `tools/demo`: makes a temporary hsmfs, tells the story, says how to go on."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import tempfile
import threading
import warnings
from pathlib import Path
from types import FrameType

from rich.console import Console
from tempfs import REPOSITORY, TempFs, TempFsError

from demo.picture import Picture
from demo.story import SETTINGS, DemoError, Story
from demo.watch import Watch
from hsmfs.errors import HsmError


def main() -> int:
    """Exit code: 0 every byte compared equal, 1 not, 130 stopped."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--plain", action="store_true")
    options = parser.parse_args()
    # pydicom's test files break rules on purpose, and it says so for each.
    warnings.simplefilter("ignore")
    logging.getLogger("pydicom").setLevel(logging.ERROR)
    signal.signal(signal.SIGTERM, _terminated)
    console = Console(highlight=False, soft_wrap=True)
    try:
        return tell(console, live=console.is_terminal and not options.plain, keep=options.keep)
    except KeyboardInterrupt:
        console.print("stopped; nothing is left mounted or running", style="yellow")
        return 130
    except (DemoError, TempFsError, HsmError, OSError) as fault:
        print(f"\nFAILED: {fault}", file=sys.stderr)
        return 1


def tell(console: Console, *, live: bool, keep: bool) -> int:
    """Run the story; with keep stay until Ctrl-C."""
    console.print("==> a simulated library: 3 drives, 2 magazines of 8 discs", style="bold cyan")
    folder = Path(tempfile.mkdtemp(prefix="demo."))
    folder.chmod(0o755)
    with TempFs(SETTINGS, folder=folder) as fs:
        console.print(f"    mounted on {fs.mountpoint}")
        with Picture(console, live=live) as picture, Watch(fs.socket, picture) as watch:
            story = Story(fs, picture, watch)
            story.run()
        console.print(f"\nPASSED: {len(story.files)} files, every byte equal", style="bold green")
        _go_on(console, fs, story, keep)
        if keep:
            _wait_for_interrupt()
    return 0


def _go_on(console: Console, fs: TempFs, story: Story, keep: bool) -> None:
    if not keep:
        console.print(
            "\nTo try things yourself: tools/demo --keep   To run the tests: tools/test\n"
            "To set up a real one: see README.md, 'Five minutes for a NAS admin'"
        )
        return
    file = fs.mountpoint / "dicom" / max(story.files, key=lambda file: file.size).name
    console.print(
        f"\nIt runs until Ctrl-C. In another terminal:\n\n"
        f"  cd {file.parent}\n"
        f"  alias hsmctl='{REPOSITORY}/.venv/bin/hsmctl --config {fs.config}'\n\n"
        f"  hsmctl status\n"
        f"  hsmctl volume list\n"
        f"  hsmctl info {file.name}\n"
        f"  hsmctl release {file.name} && ls -ls {file.name}\n"
        f"  time sha256sum {file.name}      # comes from discs\n"
        f"  hsmctl why {file.name}          # meanwhile, what it waits for\n"
        f"  hsmctl events --follow\n"
        f"  {REPOSITORY}/tools/hsm-disc list {story.images()[-1]}\n"
    )


def _wait_for_interrupt() -> None:
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        return


def _terminated(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # readers whom the kernel holds are not waited for
