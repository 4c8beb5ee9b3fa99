"""SGLang's CPU server with its own attention in prefill, for comparison: see benchmarks/rollout_sharing.py."""

import sglang_cpu.tuning

sglang_cpu.tuning.attend_to_new_tokens_alone = lambda: None  # before the next import, which makes the changes

from sglang_cpu import launch_server  # noqa: E402

if __name__ == "__main__":
    launch_server.main()
