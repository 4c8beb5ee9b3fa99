"""Make every Python process of this environment able to import torchvision beside CPU torch.

    python -m sglang_cpu.install_hook            # write the hook
    python -m sglang_cpu.install_hook --remove   # take it away

The hook is one line in a `.pth` file, which Python runs at start. It imports neither torch nor torchvision,
and it is silent when this package has been uninstalled. See `torchvision_ops` for what it does.
"""

from __future__ import annotations

import argparse
import sysconfig
from pathlib import Path

# The name sorts after setuptools' `__editable__*.pth`, so that an editable install is importable by then.
FILE_NAME = "sglang_cpu_torchvision.pth"
LINE = (
    "import importlib.util; importlib.util.find_spec('sglang_cpu') "
    "and __import__('sglang_cpu.torchvision_ops', fromlist=['install']).install()\n"
)


def hook_path() -> Path:
    """Where the hook of the running environment lies."""
    return Path(sysconfig.get_paths()["purelib"]) / FILE_NAME


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--remove", action="store_true", help="delete the hook instead of writing it")
    arguments = parser.parse_args()
    path = hook_path()
    if arguments.remove:
        path.unlink(missing_ok=True)
        print(f"removed {path}")
    else:
        path.write_text(LINE)
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
