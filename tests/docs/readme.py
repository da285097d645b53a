"""The commands that README tells a newcomer to type: extracted, and run as they are in a fresh clone.

    python -m tests.docs.readme FOLDER

clones the repository into FOLDER, puts a small competition where README expects one, and types README's commands one
after another into one shell, `make demo` and the installation included. It takes some ten minutes on two CPU cores.
"""

import argparse
import re
import subprocess
from pathlib import Path

from tests import REPOSITORY
from tests.conftest import write_competition

README = (REPOSITORY / "README.md").read_text()
SMALL = """
folds: {count: 2}
model: {encoder: test_resnet, weights: random, decoder_channels: [16, 8, 8, 8, 8]}
train: {epochs: 2, batch_size: 4, workers: 0}
infer: {tta: none}
postprocess: {steps: [fill, remove], areas: [16, 64]}
"""  # on top of README's settings file, for the time it takes


def blocks(language: str) -> list[str]:
    """The fenced blocks of README in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Every line of README that is to be typed into a shell."""
    return [line for block in blocks("sh") for line in block.splitlines()]


def write_own_competition(folder: Path) -> None:
    """`data/mine`, and the settings file that README shows for it."""
    write_competition(folder / "data" / "mine")
    [settings] = blocks("yaml")
    (folder / "configs").mkdir(exist_ok=True)
    (folder / "configs" / "mine.yaml").write_text(settings + SMALL)


def main() -> None:
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("folder", type=Path)
    folder = command.parse_args().folder.resolve()
    subprocess.run(["git", "clone", "--quiet", REPOSITORY, folder], check=True)
    write_own_competition(folder)
    lines = [f"echo '$ {line}'\n{line}" for line in commands()]
    raise SystemExit(subprocess.run(["bash", "-e", "-c", "\n".join(lines)], cwd=folder).returncode)


if __name__ == "__main__":
    main()
