#!/usr/bin/env bash
# lmms-eval in an environment of its own, .venv-evaluation; run it again at any time, it does only what is missing.
# Its pins are not those of training, and it needs no SGLang: the server of a run belongs to .venv.
#
# PYTHON=/path/to/python3.12 chooses the interpreter.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=3rdparty/lmms_eval
env=.venv-evaluation

die() { echo "evaluation-env: $*" >&2; exit 1; }
say() { echo "[evaluation-env] $*"; }

find_python() {
    for candidate in "${PYTHON:-}" .venv/bin/python python3 python3.12 python3.11; do
        [ -n "$candidate" ] && command -v "$candidate" >/dev/null || continue
        "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null || continue
        echo "$candidate"; return
    done
    return 1
}
python=$(find_python) || die "needs Python 3.11 or 3.12; none found (set PYTHON=/path/to/python)"
[ -x $env/bin/python ] || "$python" -m venv $env || die "$python lacks venv; install python3-venv"
exec 9>$env/install.lock
flock 9

fingerprint=$(cat $here/* 3rdparty/llavaonevision1_5/pyproject.toml 3rdparty/sglang_cpu/pyproject.toml | sha256sum | cut -d' ' -f1)
if [ "$(cat $env/installed 2>/dev/null)" = "$fingerprint" ]; then
    say "up to date"
    exit 0
fi

pip() { $env/bin/python -m pip --disable-pip-version-check -q "$@"; }
say "into $env with $($env/bin/python --version)"
pip install -c $here/constraints.txt setuptools wheel torch
pip install -c $here/constraints.txt -r $here/requirements.txt
pip install -c $here/constraints.txt --no-deps lmms_eval torchvision
pip install --no-deps --no-build-isolation -e 3rdparty/llavaonevision1_5
if ! $env/bin/python -c 'import sys, torch; sys.exit(torch.version.cuda is None)'; then
    pip install --no-deps --no-build-isolation -e 3rdparty/sglang_cpu  # torchvision beside CPU torch
    $env/bin/python -m sglang_cpu.install_hook >/dev/null
fi
cp $here/latex2sympy2.py "$($env/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/"

say "checking that it imports"
$env/bin/python -W ignore - <<'PYTHON' || die "lmms-eval does not import; see above"
from importlib.metadata import version
from lmms_eval.models import get_model
for name in ("async_openai", "llava_onevision1_5"):
    get_model(name)
from lmms_eval.tasks.mathvision.eval_utils import is_equal
assert is_equal("\\frac{1}{2}", "0.5"), "MathVision does not read LaTeX"
import llavaonevision1_5.modeling
print(f"  lmms-eval {version('lmms_eval')}, torch {version('torch')}, transformers {version('transformers')}")
PYTHON
echo "$fingerprint" > $env/installed
say "done"
