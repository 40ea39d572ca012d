"""Everything is in setup.cfg but this: recipes/ and constraints.txt go into the wheel inside the package sgrl."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithRecipes(build_py):
    def run(self):
        super().run()
        if self.editable_mode:  # they are used where they stand
            return
        package = Path(self.build_lib, "sgrl")
        shutil.rmtree(package / "recipes", ignore_errors=True)  # of an earlier build
        shutil.copytree("recipes", package / "recipes", ignore=shutil.ignore_patterns("__pycache__", "demo.sh"))
        shutil.copy("constraints.txt", package)


setup(cmdclass={"build_py": BuildWithRecipes})
