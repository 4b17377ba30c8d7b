"""What this part needs beyond the package, asked for by name and said in one sentence where it is missing."""

import shutil
import subprocess
from collections.abc import Iterable
from importlib.metadata import version
from importlib.util import find_spec

from trecx.errors import TrecxError

# Module -> distribution; the extra `deploy` of pyproject.toml pins them.
EXPORT = {"onnx": "onnx", "onnxruntime": "onnxruntime", "onnxscript": "onnxscript"}
GENERATE = {"emx_onnx_cgen": "emx-onnx-cgen"}

# Program -> Debian's package.
HOST = {"cc": "gcc", "make": "make"}
CORTEX_M = {
    "arm-none-eabi-gcc": "gcc-arm-none-eabi picolibc-arm-none-eabi",
    "make": "make",
    "qemu-system-arm": "qemu-system-arm",
}
# Compiler -> a file that it must find, and Debian's package with it: the compiler alone comes without a C library.
FILES = {"arm-none-eabi-gcc": ("picolibc.specs", "picolibc-arm-none-eabi")}


def packages(what: str, *wanted: dict[str, str]) -> None:
    """Raise TrecxError with the command that installs them if packages for `what` are missing."""
    missing = [name for group in wanted for module, name in group.items() if find_spec(module) is None]
    if missing:
        raise TrecxError(f"{what} needs {_listed(missing)}: run `pip install -e '.[deploy]'`")


def programs(what: str, wanted: dict[str, str]) -> None:
    """Raise TrecxError with the command that installs them (on Debian) if programs for `what` are missing."""
    missing = {program: package for program, package in wanted.items() if shutil.which(program) is None}
    for compiler, (file, package) in FILES.items():
        if compiler in wanted and compiler not in missing and not _finds(compiler, file):
            missing[file] = package
    if missing:
        packages = " ".join(dict.fromkeys(missing.values()))
        raise TrecxError(f"{what} needs {_listed(missing)}: run `apt-get install {packages}`")


def _finds(compiler: str, file: str) -> bool:
    """Whether a compiler has a file of its own by this name."""
    said = subprocess.run([compiler, f"-print-file-name={file}"], capture_output=True, text=True, check=False).stdout
    return said.strip() not in ("", file)  # what it does not find, it prints as it was given


def package_versions(wanted: Iterable[str]) -> dict[str, str]:
    """Versions of installed distributions."""
    return {name: version(name) for name in wanted}


def _listed(names: Iterable[str]) -> str:
    names = [*names]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
