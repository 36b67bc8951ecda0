"""Oracles by name, their options, and a third party's oracle found through its package's entry points."""

import importlib
import sys

import pytest
from PIL import Image

from trainer.oracles import get_oracle
from trainer.oracles.registry import entry_points, parse_spec

PACKAGE = '''
from pathlib import Path
from trainer.oracles import Verdict

class Brightness:
    """Likes images at least as bright as `least`."""
    name = "brightness"

    def __init__(self, *, least: float, steps: int = 1, invert: bool = False, folder: Path | None = None):
        self.least, self.steps, self.invert, self.folder = least, steps, invert, folder

    def score(self, images, prompts, metadata):
        values = [i.convert("L").resize((1, 1)).getpixel((0, 0)) / 255 for i in images]
        values = [1 - v if self.invert else v for v in values]
        return [Verdict(v, v >= self.least, f"brightness {v:.2f}", v >= self.least) for v in values]
'''


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A function that lays a package out as pip does, with .dist-info, and puts it on the path."""

    def install(points, distribution="likestep_brightness"):
        folder = tmp_path / distribution
        info = folder / f"{distribution}-1.0.dist-info"
        info.mkdir(parents=True)
        (folder / "likestep_brightness.py").write_text(PACKAGE)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[likestep.oracles]\n{points}\n")
        monkeypatch.syspath_prepend(str(folder))
        importlib.invalidate_caches()

    get_oracle.cache_clear()
    yield install
    get_oracle.cache_clear()
    sys.modules.pop("likestep_brightness", None)


@pytest.fixture
def brightness(installed):
    installed("brightness = likestep_brightness:Brightness")


@pytest.mark.parametrize("name", ["scenes", "ocr", "demo"])
def test_the_built_in_oracles_go_by_their_names(name):
    assert get_oracle(name).name == name


def test_every_built_in_oracle_loads():
    assert {name: point.load().name for name, point in entry_points().items()} == {n: n for n in entry_points()}


def test_an_installed_package_adds_an_oracle(brightness):
    oracle = get_oracle("brightness:least=0.5,steps=4,invert=true,folder=/models")
    assert (oracle.least, oracle.steps, oracle.invert, str(oracle.folder)) == (0.5, 4, True, "/models")
    black, white = (Image.new("RGB", (4, 4), c) for c in ("black", "white"))
    assert [v.liked for v in oracle.score([black, white], ["", ""], [{}, {}])] == [True, False]


def test_options_may_be_json(brightness):
    oracle = get_oracle('brightness:{"least": 1, "invert": false, "folder": "/a,b", "steps": 2}')
    assert (oracle.least, oracle.steps, oracle.invert, str(oracle.folder)) == (1.0, 2, False, "/a,b")


def test_one_spec_is_one_oracle(brightness):
    assert get_oracle("brightness:least=0") is get_oracle("brightness:least=0")
    assert get_oracle("brightness:least=0") is not get_oracle("brightness:least=1")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nothing", r"oracle: there is no oracle 'nothing'; use aesthetic, brightness, demo"),
        ("", r"oracle: there is no oracle ''"),
        ("brightness", r"brightness\.least: is missing"),
        ("brightness:least=high", r"brightness\.least: 'high' is not a number"),
        ("brightness:least=nan", r"brightness\.least: 'nan' is not a number"),
        ("brightness:least=1,steps=1.5", r"brightness\.steps: '1\.5' is not a whole number"),
        ('brightness:{"least": true}', r"brightness\.least: True is not a number"),
        ("brightness:least=1,invert=maybe", r"brightness\.invert: 'maybe' is not true or false"),
        ('brightness:{"least": 1, "folder": 3}', r"brightness\.folder: 3 is not a path"),
        ("brightness:leest=1", r"brightness\.leest: there is no such option; use least, steps, invert, folder"),
        ("brightness:least", r"'least' is not an option; write key=value"),
        ("brightness:least=1,least=2", r"brightness\.least: is given twice"),
        ('brightness:{"least": 1, "least": 2}', r"brightness\.least: is given twice"),
        ('brightness:{"least": 1', r"brightness: the options are not valid JSON"),
        ("scenes:fast=true", r"scenes\.fast: there is no such option; it has none"),
    ],
)
def test_a_wrong_spec_names_the_field(brightness, spec, message):
    with pytest.raises(ValueError, match=message):
        get_oracle(spec)


def test_a_value_may_hold_colons_and_equals_signs():
    assert parse_spec("remote:url=http://host:80/?a=b") == ("remote", {"url": "http://host:80/?a=b"})


def test_a_package_cannot_take_a_name_that_is_taken(installed):
    installed("scenes = likestep_brightness:Brightness")
    with pytest.raises(
        ValueError, match=r"'scenes' is offered by both trainer\.oracles\.scenes:SceneOracle and likestep_"
    ):
        get_oracle("scenes")


def test_a_package_that_cannot_be_imported_says_where(installed):
    installed("broken = likestep_brightness:Missing")
    with pytest.raises(ValueError, match="'broken' cannot be loaded from likestep_brightness:Missing"):
        get_oracle("broken")
