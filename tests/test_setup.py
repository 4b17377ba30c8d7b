"""Setting up: which Python is taken, what the lock holds, and that installation checks it."""

import hashlib
import itertools
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from trecx import paths

LOCK = (paths.ROOT / "requirements.lock").read_text()
VERSIONS = ("3.11", "3.12", "3.13")


def locked() -> dict[str, list[tuple[Requirement, list[str]]]]:
    """Name of a package -> its entries in the lock, with their checksums."""
    found: dict[str, list[tuple[Requirement, list[str]]]] = {}
    for entry in re.split(r"\n(?=[A-Za-z])", re.sub(r"^#.*\n", "", LOCK, flags=re.MULTILINE).strip()):
        text, *hashes = entry.replace("\\\n", "").split(" --hash=sha256:")
        requirement = Requirement(text.strip())
        found.setdefault(canonicalize_name(requirement.name), []).append((requirement, [h.strip() for h in hashes]))
    return found


def test_every_package_is_pinned_with_checksums() -> None:
    for name, entries in locked().items():
        for requirement, hashes in entries:
            assert re.fullmatch(r"==[^*,]+", str(requirement.specifier)), name
            assert hashes, name
            assert all(re.fullmatch(r"[0-9a-f]{64}", each) for each in hashes), name


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("system", "machine"), [("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64")])
def test_the_lock_has_each_package_once_for_every_system_and_python(version: str, system: str, machine: str) -> None:
    where = {"sys_platform": system, "platform_machine": machine, "platform_system": system.title()}
    for patch in ("2", "9"):  # Debian 12 has 3.11.2
        here = where | {"python_version": version, "python_full_version": f"{version}.{patch}"}
        given = {
            name: [e for e, _ in entries if e.marker is None or e.marker.evaluate(default_environment() | here)]
            for name, entries in locked().items()
        }
        assert all(len(entries) <= 1 for entries in given.values())
        assert all(given[name] for name in ("torch", "torchvision", "numpy", "jupyter-book", "ruff", "soupsieve"))
        assert bool(given["nvidia-cudnn-cu13"]) == (system == "linux")


def test_nothing_that_is_needed_here_is_missing_in_the_lock() -> None:
    """Everything that trecx[book,data,test] asks for, and what that asks for, at versions that all agree on."""
    lock = {
        name: entry
        for name, entries in locked().items()
        for entry, _ in entries
        if entry.marker is None or entry.marker.evaluate()
    }
    with (paths.ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    extras = project["optional-dependencies"]
    waiting = [
        Requirement(text) for text in [*project["dependencies"], *extras["book"], *extras["data"], *extras["test"]]
    ]
    seen: set[str] = set()
    while waiting:
        needed = waiting.pop()
        name = canonicalize_name(needed.name)
        assert name in lock, f"{name} is missing"
        assert needed.specifier.contains(str(lock[name].specifier)[2:], prereleases=True), f"{lock[name]}, {needed}"
        if str(needed) in seen:
            continue
        seen.add(str(needed))
        try:
            asked = distribution(name).requires or []
        except PackageNotFoundError:
            continue
        for text in asked:
            child = Requirement(text)
            if child.marker is None or any(child.marker.evaluate({"extra": e}) for e in (*needed.extras, "")):
                waiting.append(child)
    assert len(seen) > 100


def test_conda_installs_the_lock_and_nothing_that_pip_refuses_beside_checksums() -> None:
    parts = yaml.safe_load((paths.ROOT / "environment.yml").read_text())["dependencies"]
    (pip,) = [part["pip"] for part in parts if isinstance(part, dict)]
    assert pip == ["-r requirements.lock"]  # pip takes no `-e .` in the same call: it cannot check its files


def test_the_same_pythons_are_named_everywhere() -> None:
    with (paths.ROOT / "pyproject.toml").open("rb") as file:
        classifiers = tomllib.load(file)["project"]["classifiers"]
    assert [c.rpartition(" ")[2] for c in classifiers if "Python :: 3." in c] == list(VERSIONS)
    tests = yaml.safe_load((paths.ROOT / ".github/workflows/tests.yml").read_text())
    assert tests["jobs"]["tests"]["strategy"]["matrix"]["python"] == list(VERSIONS)
    text = "Python 3.11, 3.12 or 3.13"
    assert all(text in (paths.ROOT / name).read_text() for name in ("README.md", "Makefile", "book/rerun.md"))


@pytest.mark.parametrize(("profile", "one_by_one"), [("quick", 3), ("full", 6)])
def test_under_j_pages_that_train_run_one_after_the_other(profile: str, one_by_one: int) -> None:
    command = ["make", "-pn", f"TRECX_PYTHON={sys.executable}", f"PROFILE={profile}", "book"]
    rules = subprocess.run(command, cwd=paths.ROOT, capture_output=True, text=True, check=True).stdout
    found = re.findall(r"^book/notebooks/(\w+_live)\.ipynb:.*?(?: \| (.*))?$", rules, flags=re.MULTILINE)
    before = {page: re.findall(r"(\w+_live)\.ipynb", rest) for page, rest in found}
    pages = sorted(before)
    assert len(pages) == 6
    for earlier, page in itertools.pairwise(pages[:one_by_one]):
        assert earlier in before[page]
    assert all(set(pages[:3]) <= set(before[page]) for page in pages[3:])


def test_folders_named_after_the_import_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRECX_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TRECX_RECORDS", str(tmp_path / "records"))
    found = [paths.DATA, paths.DOWNLOADS, paths.RECORDS]
    assert found == [tmp_path / name for name in ("data", "data/downloads", "records")]
    with pytest.raises(AttributeError, match="has no attribute 'RECORD'"):
        _ = paths.RECORD  # type: ignore[attr-defined]


def test_an_empty_variable_names_no_folder(tmp_path: Path) -> None:
    """`TRECX_DATA= make data` must not write into whatever folder it is called from."""
    environment = os.environ | {"TRECX_DATA": "", "TRECX_RECORDS": "", "PYTHONPATH": str(paths.ROOT)}
    command = [sys.executable, "-c", "from trecx import paths; print(paths.DATA); print(paths.RECORDS)"]
    said = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    assert said.split() == [str(paths.ROOT / "data"), str(paths.ROOT / "_build/records")]


# --- make .venv/.ready, on a toy


def make(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS", "PIP_", "UV_", "TRECX_", "CONDA_"))
    }
    return subprocess.run(
        ["make", ".venv/.ready", *words],
        cwd=folder,
        env=kept | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A project of its own with this Makefile, a lock of two packages, and two indexes of their files."""
    folder = tmp_path / "toy"
    folder.mkdir()
    shutil.copy(paths.ROOT / "Makefile", folder)
    (folder / "toy.py").write_text("")
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "toy"\nversion = "1"\n'
    )
    (folder / "backend.py").write_text(
        "import zipfile\n"
        "def build_editable(folder, settings=None, metadata=None):\n"
        "    with zipfile.ZipFile(f'{folder}/toy-1-py3-none-any.whl', 'w') as wheel:\n"
        "        wheel.writestr('toy-1.dist-info/METADATA', 'Metadata-Version: 2.1\\nName: toy\\nVersion: 1\\n')\n"
        "        wheel.writestr('toy-1.dist-info/WHEEL', "
        "'Wheel-Version: 1.0\\nGenerator: toy\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')\n"
        "        wheel.writestr('toy-1.dist-info/RECORD', '')\n"
        "    return 'toy-1-py3-none-any.whl'\n"
    )
    whole = tmp_path / "index"
    lock = [
        f"{name}=={version} ; python_full_version < '3.14' \\\n    --hash=sha256:{wheel(whole, name, version, 'gpu')}\n"
        for name, version in (("plain", "1.0"), ("torch", "2.0"), ("triton", "3.0"))
    ]
    (folder / "requirements.lock").write_text("# A comment.\n" + "".join(lock))
    wheel(tmp_path / "cpu", "torch", "2.0+cpu", "cpu")
    return folder


def wheel(index: Path, name: str, version: str, build: str) -> str:
    """Put a package of one module into an index; return its checksum."""
    folder = index / name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    about = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", f"build = {build!r}\n")
        archive.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    (folder / "index.html").write_text(f'<!DOCTYPE html><a href="{path.name}">{path.name}</a>')
    return hashlib.sha256(path.read_bytes()).hexdigest()


def installed(folder: Path) -> str:
    code = "import importlib.util as u; print(*[n for n in ('plain', 'torch', 'triton') if u.find_spec(n)]); "
    code += "import torch; print(torch.build)"
    command = [folder / ".venv/bin/python", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd="/").stdout


INSTALLERS = [
    "pip",
    pytest.param("uv", marks=pytest.mark.skipif(not shutil.which("uv"), reason="needs uv")),
]


def with_index(toy: Path, installer: str) -> dict[str, str]:
    index = (toy.parent / "index").as_uri()
    if installer == "uv":
        return {"UV_DEFAULT_INDEX": index, "UV_CACHE_DIR": str(toy.parent / "cache"), "UV_NO_CONFIG": "1"}
    return {"PIP_INDEX_URL": index, "PIP_CONFIG_FILE": os.devnull, "PIP_NO_CACHE_DIR": "1"}


@pytest.mark.slow
@pytest.mark.parametrize("installer", INSTALLERS)
def test_installation_checks_every_file(toy: Path, installer: str) -> None:
    python = f"PYTHON={sys.executable}"
    done = make(toy, python, **with_index(toy, installer))
    assert done.returncode == 0, done.stdout + done.stderr
    assert installed(toy) == "plain torch triton\ngpu\n"
    assert (toy / ".venv/.ready").exists()
    shutil.rmtree(toy / ".venv")
    wheel(toy.parent / "index", "plain", "1.0", "not what was locked")
    done = make(toy, python, **with_index(toy, installer) | {"UV_CACHE_DIR": str(toy.parent / "new")})
    assert done.returncode != 0
    assert re.search("hash", done.stderr + done.stdout, re.IGNORECASE)
    assert not (toy / ".venv/.ready").exists()


@pytest.mark.slow
@pytest.mark.parametrize("installer", INSTALLERS)
def test_torch_comes_from_another_index_where_one_is_named(toy: Path, installer: str) -> None:
    index = (toy.parent / "cpu").as_uri()
    done = make(toy, f"PYTHON={sys.executable}", f"TORCH_INDEX={index}", **with_index(toy, installer))
    assert done.returncode == 0, done.stdout + done.stderr
    assert installed(toy) == "plain torch\ncpu\n"


@pytest.mark.parametrize(
    ("there", "chosen"),
    [
        ({"python3.13": 0, "python3": 0}, "python3.13"),
        ({"python3.12": 0, "python3.13": 0}, "python3.12"),
        ({"python3.11": 0, "python3.12": 0}, "python3.11"),
        ({"python3.11": 1, "python3": 0}, "python3"),  # a python3.11 that does not start
        ({"python3": 1, "python": 0}, "python"),
        ({"python3": 1}, None),
    ],
)
def test_the_first_python_that_fits_is_taken(toy: Path, tmp_path: Path, there: dict[str, int], chosen: str) -> None:
    """The versions that the published numbers are closest to come first; one that does not fit is passed over."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sh", "find", "sed", "awk", "rm", "mkdir", "cat", "make"):
        (programs / name).symlink_to(str(shutil.which(name)))
    for name, status in there.items():
        (programs / name).write_text(
            f'#!/bin/sh\ncase "$1" in -c) exit {status};; -V) echo Python 3.9;; *) exit 1;; esac\n'
        )
        (programs / name).chmod(0o755)
    done = make(toy, PATH=str(programs))
    assert done.returncode != 0
    refused = "Python 3.11, 3.12 or 3.13 is needed and was not found"
    assert (f"{chosen} cannot make .venv, for the reason above" if chosen else refused) in done.stderr
    assert not (toy / ".venv/.ready").exists()
