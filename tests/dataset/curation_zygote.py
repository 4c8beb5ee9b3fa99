"""Runs `dataset.create` in forked children: a test can kill real processes without paying for imports each time.

Reads one JSON list of arguments per line, forks, writes the child's process id, waits for it and writes its status.
"""

import json
import os
import sys

import torch

torch.set_num_threads(1)  # threads of a parent do not survive a fork

from transformers import AutoProcessor  # noqa: E402, F401 - imported here once for all children

import dataset.encode  # noqa: E402, F401
import reward.pool  # noqa: E402, F401
from dataset.create import main  # noqa: E402

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        log = os.open(os.environ["CURATION_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os._exit(main(json.loads(line)))
    print(child, flush=True)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
