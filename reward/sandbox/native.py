"""The second way into the sandbox, without bubblewrap: this process confines itself, then becomes the runner.

Standard library only, handed as text to a bare interpreter. Namespaces where the kernel grants them; Landlock and
seccomp (in `runner`, per test) always. Whether the result contains anything is not believed but probed.
"""

import os
import sys

from reward.sandbox.confine import die_with_parent, drop_capabilities, restrict_files, unshare_namespaces
from reward.sandbox.runner import main


def confined_main(parent_pid: int, readable: list[str]) -> None:
    """Confine, then serve tests as process 1 of a process namespace. OSError goes to stderr and ends with status 1."""
    die_with_parent(parent_pid)
    try:
        unshare_namespaces()
        child = os.fork()
        if child:
            os.close(0)
            os.close(1)
            os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF)
        die_with_parent(0)  # inside the new process namespace the parent outside it has the id 0
        os.setsid()
        drop_capabilities()
        restrict_files(readable, ["/dev/null"])
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        os._exit(1)
    main()
