#!/usr/bin/env bash
# Everything that tests/gpu and benchmarks/actor_step.py need on a machine with a CUDA device, Python and torch, and no
# network: wheels, the sources, and one command.
#
#   bash benchmarks/gpu_bundle.sh OUT.tar.gz [PYTHON_VERSION]     # here, with a package index; default 3.12
#   tar xzf OUT.tar.gz && bash gpu_bundle/run.sh                  # there; `--cpu` for the tiny model without a GPU
#
# run.sh makes an environment that sees the machine's own torch (PYTHON=... names its interpreter), installs the wheels
# into it and runs the tests and the benchmark; results are in gpu_bundle/results.
set -euo pipefail
out=$(realpath -m "${1:?usage: bash benchmarks/gpu_bundle.sh OUT.tar.gz [PYTHON_VERSION]}")
version=${2:-3.12}
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
[ -x "$python" ] || python=python3
LIMIT_MIB=60

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
bundle=$folder/gpu_bundle
mkdir -p "$bundle/wheels" "$bundle/source"

platforms=()
for glibc in 2_17 2_24 2_27 2_28 2_31 2_34; do platforms+=(--platform "manylinux_${glibc}_x86_64"); done
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --implementation cp \
    --python-version "$version" --abi "cp${version//./}" --abi abi3 --abi none "${platforms[@]}" \
    --platform manylinux2014_x86_64 --platform any \
    --constraint 3rdparty/constraints-gpu.txt --requirement benchmarks/gpu_bundle.txt --dest "$bundle/wheels"
for package in llavaonevision1_5 areal_launcher; do
    "$python" -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation \
        --wheel-dir "$bundle/wheels" "3rdparty/$package"
done
mib=$(($(du -sb "$bundle/wheels" | cut -f1) / 1048576))
if [ "$mib" -ge "$LIMIT_MIB" ]; then
    echo "the wheels take $mib MiB, wanted less than $LIMIT_MIB" >&2
    exit 1
fi

git ls-files --cached --others --exclude-standard benchmarks dataset reward trains utils configs tests/gpu tests/conftest.py pyproject.toml 3rdparty/constraints-gpu.txt \
    | tar --create --files-from - | tar --extract --directory "$bundle/source"
cp benchmarks/gpu_bundle_run.sh "$bundle/run.sh"
tar --create --gzip --file "$out" --directory "$folder" gpu_bundle
echo "$out: $(ls "$bundle/wheels" | wc -l) wheels, $mib MiB, for Python $version; packed $(($(stat -c %s "$out") / 1048576)) MiB"
