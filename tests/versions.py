"""The tests with the lowest, and with the highest versions that requirements.txt and pyproject.toml allow.

    python -m tests.versions lowest highest [--python python3.12] [--only tests/masks tests/submission]

Each makes an environment of its own below .versions/ (several GB with torch) and runs the tests in it. `lowest` takes
of each package the last release of the lowest series: of numpy>=2.0 the last 2.0.x.
"""

import argparse
import re
import subprocess
import sys
import tomllib

from tests import REPOSITORY

PARALLEL = ["-n", "logical", "--maxprocesses", "4", "--dist", "loadfile"]  # as make test
REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)(>=|==)([0-9.]+)(.*)")


def requirements(kind: str) -> list[str]:
    """What pip is asked for; a package that the tests need in a second range is asked for once."""
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    lines = [*(REPOSITORY / "requirements.txt").read_text(encoding="utf-8").split(), *extras["tests"]]
    asked = {}
    for line in lines:
        name, operator, lower, _ = REQUIREMENT.fullmatch(line).groups()
        asked[name] = f"{name}=={lower}.*" if kind == "lowest" and operator == ">=" else line
    return list(asked.values())


def run_tests(kind: str, python: str, only: list[str]) -> int:
    """Make the environment, say what is in it, run the tests; pytest's exit code."""
    folder = REPOSITORY / ".versions" / kind
    subprocess.run([python, "-m", "venv", str(folder)], check=True)
    own = next(path for path in (folder / "bin" / "python", folder / "Scripts" / "python.exe") if path.is_file())
    subprocess.run([str(own), "-m", "pip", "install", "--quiet", "--upgrade", *requirements(kind)], check=True)
    subprocess.run([str(own), "-m", "pip", "freeze"], check=True)
    return subprocess.run(
        [str(own), "-m", "pytest", "-p", "no:cacheprovider", *PARALLEL, *only], cwd=REPOSITORY
    ).returncode


if __name__ == "__main__":
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("kinds", nargs="+", choices=["lowest", "highest"])
    command.add_argument("--python", default=sys.executable, help="the Python to make the environments with")
    command.add_argument("--only", nargs="*", default=[], metavar="PATH", help="only these tests")
    arguments = command.parse_args()
    codes = [run_tests(kind, arguments.python, arguments.only) for kind in arguments.kinds]
    sys.exit(max(codes))
