#!/usr/bin/env bash
# Installs everything into .venv; run it again at any time, it does only what is missing.
#
#   bash install.sh          GPU profile where nvidia-smi answers, else CPU profile
#   bash install.sh --cpu    the demo, the tests and all development (Python 3.11 or 3.12; 2.5 GB installed)
#   bash install.sh --gpu    training on GPUs (Python 3.12, NVIDIA driver 570 or newer: CUDA 12.8; 13 GB installed)
#   ... --render             besides, Chromium for html-code rewards with `render: true` (a system package, 300 MB)
#
# PYTHON=/path/to/python3.12 chooses the interpreter.
set -euo pipefail
cd "$(dirname "$0")"

die() { echo "install.sh: $*" >&2; exit 1; }
say() { echo "[install] $*"; }

profile=
render=
for argument in "$@"; do
    case "$argument" in
        --cpu) profile=cpu ;;
        --gpu) profile=gpu ;;
        --render) render=yes ;;
        *) die "unknown argument $argument; usage: bash install.sh [--cpu | --gpu] [--render]" ;;
    esac
done
if [ -z "$profile" ]; then
    profile=cpu
    if command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1; then profile=gpu; fi
fi

# --- what must be there before anything is downloaded ---
need_gb=6; wanted_python="3.12 3.11"
if [ "$profile" = gpu ]; then need_gb=30; wanted_python="3.12"; fi

find_python() {
    for candidate in "${PYTHON:-}" python3 python3.12 python3.11; do
        [ -n "$candidate" ] && command -v "$candidate" >/dev/null || continue
        version=$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
        case " $wanted_python " in *" $version "*) echo "$candidate"; return ;; esac
    done
    return 1
}
python=$(find_python) || die "the $profile profile needs Python ${wanted_python// / or }; none found (set PYTHON=/path/to/python)"
"$python" -c 'import venv, ensurepip' 2>/dev/null || die "$python lacks venv; install python3-venv"
free_gb=$(df -Pk . | awk 'NR==2 {print int($4 / 1048576)}')
[ -x .venv/bin/python ] || [ "$free_gb" -ge "$need_gb" ] || die "needs $need_gb GB of free disk here, found $free_gb GB"

# --- system packages: cairo renders SVG, bubblewrap confines generated code, a compiler builds extensions ---
missing=()
ldconfig -p | grep -q 'libcairo\.so\.2' || missing+=(libcairo2)
command -v bwrap >/dev/null || missing+=(bubblewrap)
command -v c++ >/dev/null || missing+=(g++)
if [ -n "$render" ] && ! command -v chromium >/dev/null; then missing+=(chromium fonts-liberation); fi
if [ "${#missing[@]}" -gt 0 ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "system packages: ${missing[*]}"
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null
    else
        die "missing system packages; run: sudo apt-get install ${missing[*]}"
    fi
fi

# --- Python packages ---
if [ -x .venv/bin/python ]; then
    have=$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || echo broken)
    case " $wanted_python " in *" $have "*) ;; *) die ".venv has Python $have; remove it and run this again" ;; esac
else
    "$python" -m venv .venv
fi
# Two runs at once (make -j, two terminals) must not install into the same environment.
exec 9>.venv/install.lock
flock 9

fingerprint=$(cat install.sh 3rdparty/*.txt 3rdparty/*/pyproject.toml 3rdparty/areal_launcher/launcher/*.py | sha256sum | cut -d' ' -f1)-$profile
if [ "$(cat .venv/installed 2>/dev/null)" = "$fingerprint" ]; then
    say "$profile profile is up to date"
    exit 0
fi

pip() { .venv/bin/python -m pip --disable-pip-version-check -q "$@"; }
say "$profile profile into .venv with $(.venv/bin/python --version)"
if [ "$profile" = cpu ]; then
    constraints=3rdparty/constraints-cpu.txt
    pip install -c $constraints setuptools wheel torch
    pip install -c $constraints -r 3rdparty/requirements-cpu.txt
    pip install -c $constraints --no-deps areal sglang torchvision
else
    pip install uv
    .venv/bin/uv pip install -q --python .venv/bin/python --override 3rdparty/overrides-gpu.txt \
        -c 3rdparty/constraints-gpu.txt -r 3rdparty/requirements-gpu.txt
fi
pip install --no-deps --no-build-isolation -e 3rdparty/llavaonevision1_5
pip install --no-deps --no-build-isolation --force-reinstall ./3rdparty/areal_launcher
if [ "$profile" = cpu ]; then
    pip install --no-deps --no-build-isolation -e 3rdparty/sglang_cpu
    .venv/bin/python -m sglang_cpu.install_hook
else
    log=.venv/flash-attn.log
    .venv/bin/uv pip install --python .venv/bin/python --no-build-isolation --no-deps \
        -r 3rdparty/requirements-gpu-build.txt >"$log" 2>&1 ||
        say "flash-attn was not installed (it takes its authors' wheel from GitHub, or compiles with nvcc; see $log): run this again, or train with actor.attn_impl=sdpa"
fi

say "checking that the stack imports"
.venv/bin/python -W ignore - "$profile" <<'PYTHON' || die "the installed stack does not import; see above"
import importlib, importlib.util, sys
profile = sys.argv[1]
names = ["torch", "torchvision", "transformers", "datasets", "areal", "areal.launcher", "llavaonevision1_5.modeling",
         "math_verify", "Levenshtein", "cairosvg", "html5lib", "skimage", "wandb", "yaml", "jinja2"]
assert importlib.util.find_spec("bokeh"), "bokeh is missing"
names += ["sglang_cpu", "sglang"] if profile == "cpu" else ["sgl_kernel", "sglang"]
if profile == "gpu" and importlib.util.find_spec("flash_attn"):
    names.append("flash_attn")
for name in names:
    if name == "sglang" and profile == "cpu":
        from sglang_cpu import stand_ins
        stand_ins.install()  # as its launch script does, just before SGLang is imported; it comes last
    module = importlib.import_module(name)
    if "." not in name and hasattr(module, "__version__"):
        print(f"  {name} {module.__version__}")
PYTHON
if [ "$profile" = cpu ] || .venv/bin/python -c 'import importlib.util, sys; sys.exit(not importlib.util.find_spec("flash_attn"))'; then
    echo "$fingerprint" > .venv/installed  # without flash-attn the next run tries again
fi
say "done; activate with: source .venv/bin/activate"
