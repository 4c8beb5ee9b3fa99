"""SGLang's CPU server with its own attention, for comparison: see benchmarks/rollout_sharing.py."""

import sglang_cpu.tuning

# before the next import, which makes the changes
sglang_cpu.tuning.attend_to_new_tokens_alone = sglang_cpu.tuning.decode_in_batches = lambda: None

from sglang_cpu import launch_server  # noqa: E402

if __name__ == "__main__":
    launch_server.main()
