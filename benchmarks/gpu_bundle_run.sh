#!/usr/bin/env bash
# Part of the bundle that benchmarks/gpu_bundle.sh makes: `bash run.sh` with a CUDA device, `bash run.sh --cpu` without.
set -euo pipefail
cd "$(dirname "$0")"
python=${PYTHON:-python3}
"$python" -c 'import torch; print("torch", torch.__version__, "cuda", torch.cuda.is_available())'

"$python" -m venv environment
# the machine's torch, wherever its interpreter has it from; what the wheels bring comes first
"$python" -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parents[1])' \
    > "$(environment/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/torch_of_the_machine.pth"
environment/bin/python -m pip install --quiet --disable-pip-version-check --no-index --no-deps --ignore-installed wheels/*.whl
mkdir -p results
results=$PWD/results
cd source
run() { echo "+ $*"; ../environment/bin/python -W ignore "$@"; }

attention=flash_attention_2
if ! ../environment/bin/python -c 'import flash_attn' 2> /dev/null; then
    attention=sdpa
    echo "flash-attn is not installed: attention runs as sdpa, and the test that compares the two is skipped"
fi
if [ "${1:-}" = --cpu ]; then
    run -m pytest -q -m gpu tests/gpu | tee "$results/tests.txt"
    run benchmarks/actor_step.py --size tiny --prompts 4 --group 8 --json "$results/tiny.json" | tee "$results/tiny.txt"
    exit
fi
status=0
run -m pytest -q -s -m gpu tests/gpu | tee "$results/tests.txt" || status=$?
memory=$(../environment/bin/python -c 'import torch; print(torch.cuda.get_device_properties(0).total_memory >> 30)')
sizes=()
[ "$memory" -lt 55 ] || sizes+=(4b-half)
[ "$memory" -lt 90 ] || sizes+=(4b)
[ "$memory" -lt 150 ] || sizes+=(8b)
[ ${#sizes[@]} -gt 0 ] || sizes=(tiny)
for size in "${sizes[@]}"; do
    # the recipe's two stages: prompts of an image of 324 tokens, 16 answers of 25 and of 600 tokens
    for answer in 25 600; do
        run benchmarks/actor_step.py --size "$size" --attn "$attention" --tokens 6144 --steps 3 --prompts 8 --group 16 \
            --image-tokens 324 --answer-tokens "$answer" --checkpoint "$results/checkpoint-$size" \
            --json "$results/$size-$answer.json" | tee "$results/$size-$answer.txt" || status=$?
    done
    rm -rf "$results/checkpoint-$size"
done
exit "$status"
