import email.parser
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PACKAGES = Path(__file__).parents[1] / "packages"
NAMES = ("core", "image", "video", "audio")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("wheels")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel"]
    for name in NAMES:
        command = [*build, "--directory", str(folder)]
        done = subprocess.run(command, cwd=PACKAGES / name, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return {name: next(folder.glob(f"smoothcache_{name}-*.whl")) for name in NAMES}


def files(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


def metadata(wheel: Path):
    archive = zipfile.ZipFile(wheel)
    name = next(file for file in archive.namelist() if file.endswith(".dist-info/METADATA"))
    return email.parser.Parser().parsestr(archive.read(name).decode())


@pytest.mark.parametrize("name", NAMES)
def test_wheel_holds_the_source_and_nothing_else(wheels: dict[str, Path], name: str):
    source = PACKAGES / name / "src"
    kept = [file for file in source.rglob("*") if file.is_file() and file.suffix != ".pyc"]
    expected = {file.relative_to(source).as_posix() for file in kept}
    assert f"smoothcache_{name}/py.typed" in expected
    assert {file for file in files(wheels[name]) if ".dist-info/" not in file} == expected


@pytest.mark.parametrize("name", ["image", "video", "audio"])
def test_wheel_holds_its_data_and_its_command(wheels: dict[str, Path], name: str):
    held = files(wheels[name])
    assert any(file.startswith(f"smoothcache_{name}/data/") for file in held)
    assert f"smoothcache_{name}/cli.py" in held
    assert any(file.endswith(".dist-info/entry_points.txt") for file in held)


@pytest.mark.parametrize("name", NAMES)
def test_wheel_claims_only_its_own_top_level_name(wheels: dict[str, Path], name: str):
    tops = {file.partition("/")[0] for file in files(wheels[name])}
    assert {top for top in tops if not top.endswith(".dist-info")} == {f"smoothcache_{name}"}


@pytest.mark.parametrize("name", NAMES)
def test_wheel_carries_the_licence(wheels: dict[str, Path], name: str):
    assert metadata(wheels[name])["License-Expression"] == "Apache-2.0"
    assert any(file.endswith(".dist-info/licenses/LICENSE") for file in files(wheels[name]))


def test_versions_agree_and_siblings_are_pinned(wheels: dict[str, Path]):
    version = metadata(wheels["core"])["Version"]
    for name in ("image", "video", "audio"):
        described = metadata(wheels[name])
        assert described["Version"] == version
        needed = {need.replace("[cli]", "") for need in described.get_all("Requires-Dist", [])}
        assert f"smoothcache-core=={version}" in needed


def test_the_command_line_of_core_is_an_extra(wheels: dict[str, Path]):
    described = metadata(wheels["core"])
    for name in ("cyclopts", "rich"):
        (need,) = [n for n in described.get_all("Requires-Dist", []) if n.startswith(name)]
        assert need.endswith("extra == 'cli'")


def test_the_model_hub_is_an_extra_of_core(wheels: dict[str, Path]):
    needs = metadata(wheels["core"]).get_all("Requires-Dist", [])
    (need,) = [need for need in needs if need.startswith("huggingface-hub")]
    assert need.endswith("extra == 'hub'")
