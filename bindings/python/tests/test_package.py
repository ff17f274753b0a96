"""What is handed over: an sdist that builds alone, and the extension with an installed library."""
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent
ROOT = PACKAGE.parent.parent
WORKS = ("import kist, sys, os\n"
         "assert os.path.dirname(os.path.dirname(kist.__file__)) == sys.argv[1], kist.__file__\n"
         "with kist.open(sys.argv[2]) as store:\n"
         "    store.bank('b')['k'] = b'v'\n"
         "    assert store.bank('b')['k'] == b'v'\n"
         "print('works', kist.__version__)\n")

pytestmark = pytest.mark.skipif(not (ROOT / ".git").exists(),
                                reason="not in a clone of the repository")


def run(command, **options):
    done = subprocess.run([str(word) for word in command], text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, **options)
    assert done.returncode == 0, done.stdout
    return done.stdout


def environment(**more):
    """The tools of this virtual environment, but none of its packages' paths."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **more}


def install(what, target, *settings, **more):
    run([sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
         "--no-build-isolation", "--no-deps", *settings, "--target", target, what],
        env=environment(**more))


def works(target, folder, **more):
    said = run([sys.executable, "-c", WORKS, target, f"{folder}/s"], cwd=folder,
               env=environment(PYTHONPATH=str(target), **more))
    assert said.startswith("works")


def test_an_sdist_builds_without_the_repository(folder):
    mesonpy = "import mesonpy, sys; print(mesonpy.build_sdist(sys.argv[1]))"
    run([sys.executable, "-c", mesonpy, folder], cwd=PACKAGE, env=environment())
    sdist, = Path(folder).glob("kist-*.tar.gz")
    install(sdist, f"{folder}/site", "-Csetup-args=-Dlibkist=bundled", "-Csetup-args=-Doptimization=0")
    works(f"{folder}/site", folder)
    assert Path(folder, "site", "kist", "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


def test_the_extension_is_linked_with_an_installed_library(folder):
    run(["meson", "setup", "-Doptimization=0", "--prefix", f"{folder}/usr", "--libdir", "lib",
         f"{folder}/build", ROOT], env=environment())
    run(["meson", "install", "--quiet", "-C", f"{folder}/build"], env=environment())
    library = f"{folder}/usr/lib"
    install(PACKAGE, f"{folder}/site", f"-Cbuild-dir={folder}/python",
            "-Csetup-args=-Dlibkist=installed", "-Csetup-args=-Doptimization=0",
            PKG_CONFIG_PATH=f"{library}/pkgconfig")
    works(f"{folder}/site", folder, LD_LIBRARY_PATH=library)
    extension, = Path(folder, "site", "kist").glob("_core*.so")
    needed = run(["readelf", "-d", extension])
    assert "libkist.so.0" in needed


def test_only_the_init_function_is_exported():
    import kist._core
    said = run(["nm", "-D", "--defined-only", kist._core.__file__])
    assert [line.split()[-1] for line in said.splitlines()] == ["PyInit__core"]
