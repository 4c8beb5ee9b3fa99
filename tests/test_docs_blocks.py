"""The commands of README and docs: those that cost little are run as they stand, the walkthrough as a whole too."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
WALK = ROOT / "docs" / "walkthrough.md"
INSTALL = "bash install.sh --cpu && source .venv/bin/activate\n"
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
MODULE = re.compile(r"python -m ([\w.]+)([^\n|&;]*(?:\\\n[^\n|&;]*)*)")
FOREIGN = {"pip", "pytest", "venv"}


def blocks(page):
    """(heading, commands) of every bash block of a page."""
    heading = ""
    for part in re.finditer(r"^#+ ([^\n]+)$|^```bash\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        heading = part[1] or heading
        if part[2]:
            yield heading, part[2]


BLOCKS = [(page, heading, text) for page in PAGES for heading, text in blocks(page)]


def sources_of(module):
    """The text of a module; of a package all of its files. None where there is no such module."""
    name = module.replace("areal.launcher", "3rdparty.areal_launcher.launcher").replace(".", "/")
    if (ROOT / f"{name}.py").is_file():
        files = [ROOT / f"{name}.py", *(ROOT / name).parent.glob("curate/*.py")]
    else:
        files = list((ROOT / name).rglob("*.py")) if (ROOT / name / "__main__.py").is_file() else []
    if "areal_launcher" in name:
        files += [path.parent / "preflight.py" for path in files] + [ROOT / "trains/rehearsal/cli.py"]
    return "".join(path.read_text() for path in files if path.is_file()) or None


def faults(text):
    """What a block names that is not there: modules, their options, targets of make, configurations."""
    code = "\n".join(
        line.partition(" # ")[0]
        for line in re.sub(r"<<'EOF'.*?^EOF$", "", text, flags=re.M | re.S).splitlines()
    )
    for module, words in MODULE.findall(code):
        source = None if module in FOREIGN else sources_of(module)
        if source is None and module not in FOREIGN:
            yield f"there is no {module}"
        for option in re.findall(r"(?<=\s)--[a-z][\w-]*", words) if source else ():
            if option != "--help" and f'"{option}"' not in source:
                yield f"{module} takes no {option}"
    yield from (f"make has no {t}" for t in re.findall(r"^make ([a-z-]+)", code, re.M) if t not in TARGETS)
    for file in re.findall(r"configs/[\w-]+\.yaml", code):
        if not (ROOT / file).is_file() and not re.search("NAME|FILE|STAGE|mine", file):
            yield f"there is no {file}"


@pytest.mark.parametrize(
    ("page", "heading", "text"), BLOCKS, ids=lambda value: getattr(value, "name", None) or ""
)
def test_what_a_block_names_is_there(page, heading, text):
    assert not list(faults(text)), heading


def test_what_is_not_there_is_noticed():
    wrong = (
        "python -m utils.doktor\npython -m dataset.inspect x --no-such\nmake tests\npython x configs/x.yaml\n"
    )
    assert len(list(faults(wrong))) == 4


@pytest.fixture
def clone(tmp_path):
    """The files of the project, without what was made in its folder; this environment's Python comes first."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, tmp_path / name)
    return tmp_path


def run(text, folder, timeout=120):
    """Run a block as a person would paste it, but stop at the first command that fails; what it printed."""
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    environment = {
        "PATH": path,
        "HOME": str(folder / "home"),
        "PYTHONWARNINGS": "ignore",
        "OMP_NUM_THREADS": "1",
    }
    result = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", text], cwd=folder, env=environment, capture_output=True, text=True,
        timeout=timeout, check=False,
    )  # fmt: skip
    assert result.returncode == 0, f"{text}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
    assert "Traceback" not in result.stderr
    return result.stdout


def test_cheap_blocks_run_as_they_stand(clone, digits_data):
    """Pictures, an own source and an own reward of the walkthrough; README's data of one's own."""
    (clone / "data").mkdir(exist_ok=True)
    shutil.copytree(digits_data, clone / "data" / "digits")
    walk = dict(blocks(WALK))
    assert '"question": "Which digit is this?"' in run(walk["The pictures"], clone)
    assert "\neven " in "\n" + run(walk["A source of your own"], clone)
    reward = next(text for heading, text in blocks(WALK) if heading == "A reward of your own")
    assert "total         0.3000" in run(reward, clone)
    [own] = [text for text in dict(blocks(ROOT / "README.md")).values() if "data/mine.jsonl" in text] or [
        text for _, text in blocks(ROOT / "README.md") if "data/mine.jsonl" in text
    ]
    look, _, launch = own.partition("python -m areal.launcher.local trains/grpo.py")
    assert "0 problems" in run(look, clone)
    asked = run(f"python -m utils.doctor {launch.strip()} || true", clone)
    assert "MISSING: actor.path=" in asked
    assert not re.search("is not in|not a key|train_dataset", asked), asked


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_the_walkthrough_from_its_first_to_its_last_command(clone):
    """As it stands, but for the installation: this environment is the one that it makes."""
    said = {}
    for heading, text in blocks(WALK):
        said[heading] = said.get(heading, "") + run(text.replace(INSTALL, ""), clone, timeout=1800)
    assert "no problem found" in said["Look before anything runs"]
    assert "is shrunk" in said["Look before anything runs"]
    assert "held-out accuracy after step 20" in said["Train"]
    for name in ("mine", "mine-near"):
        assert list((clone / "runs" / name / "first" / "final").glob("*.safetensors"))
