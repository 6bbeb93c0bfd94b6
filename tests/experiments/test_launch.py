import importlib
import os
import pathlib
import re
import subprocess
import sys

import pytest
from absl import flags, logging

from ambient_jax.cli import console, launch
from ambient_jax.train import config as config_lib
from experiments import checks, tasks

ROOT = pathlib.Path(__file__).parents[2]


def test_unknown_task_is_named_with_the_nearest():
    with pytest.raises(
        ValueError, match="task.name is 'maez', expected one of .*maze, .*; did you mean 'maze'"
    ):
        tasks.get("maez")
    assert tasks.get("") is None


@pytest.mark.parametrize("error", [ValueError("a b"), FileNotFoundError("a b")])
def test_bad_input_ends_with_one_line(error):
    with pytest.raises(SystemExit) as ended, console.one_line_errors():
        raise error
    assert str(ended.value).startswith("error: a b\n")


def test_bugs_keep_their_traceback():
    with pytest.raises(TypeError), console.one_line_errors():
        raise TypeError("a bug")


def test_verbosity_shows_the_traceback():
    before = logging.get_verbosity()
    logging.set_verbosity(1)
    try:
        with pytest.raises(ValueError), console.one_line_errors():
            raise ValueError("a b")
    finally:
        logging.set_verbosity(before)


def test_a_training_takes_a_folder_in_a_bucket():
    for workdir in ("runs/open_x/mine", "gs://b/run", "s3://b/runs/mine"):
        launch.check_workdir(workdir)
    for workdir in ("gs://b", "gs://", "az://b/run"):
        with pytest.raises(ValueError, match=f"--workdir is '{workdir}', expected a folder that"):
            launch.check_workdir(workdir)
    with pytest.raises(ValueError, match="'gs://b/run', .* only a training takes a bucket"):
        launch.check_workdir("gs://b/run", buckets=False)


DEMO = "--config=experiments/open_x/config.py:"


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["open_x", f"{DEMO}dmeo"], "config variant is 'dmeo', .*; did you mean 'demo'"),
        pytest.param(
            *(["annotate", f"{DEMO}demo"], "config.task.name is 'maze', expected one of annotate"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *(["compile", f"{DEMO}demo", "--config.train.steps=x"], "train.steps=x: expected int"),
            marks=pytest.mark.slow,
        ),
        (["evaluate", "--smaples=3"], "Unknown command line flag 'smaples'. Did you mean: samples"),
        pytest.param(
            *(["benchmarks", "loder"], "benchmark 'loder', .*; did you mean 'loader'"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *(["maze.data", "x"], "unexpected arguments|--root must have a value"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_commands_end_with_one_line_and_another_code_than_0(command, told, tmp_path):
    module, *arguments = command
    ended = subprocess.run(
        [sys.executable, "-m", f"experiments.{module}", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 1
    line = ended.stderr.removesuffix("\n").removesuffix("\n(--verbosity=1 shows the traceback)")
    assert re.search(told, line) and "\n" not in line, ended.stderr


def _parse(*argv):
    line, values = ["program", *argv], flags.FlagValues()
    launch.define(values, line)
    return values, launch.parse(line, values)


def test_flags_and_fields_reach_the_config(monkeypatch):
    monkeypatch.chdir(ROOT)
    values, rest = _parse(
        *(f"{DEMO}demo", "--config.train.steps=700", "--config.data.sources.rrt.sigma_min=0.3"),
        *("--config.data.observation=state", "--config.data.shards=4"),
    )
    config, workdir = launch.checked("open_x", rest, values)
    assert (config.train.steps, config.data.sources.rrt.sigma_min) == (700, 0.3)
    assert (config.data.observation, config.data.shards) == (("state",), 4)
    assert workdir == "runs/open_x/demo"


def test_verbosity_shows_the_traceback_of_a_config_file(tmp_path):
    (tmp_path / "c.py").write_text("def get_config():\n    return {}['absent']\n")
    with pytest.raises(ValueError, match="KeyError: 'absent'") as error:
        _parse(f"--config={tmp_path}/c.py", "--verbosity=1")
    assert isinstance(error.value.__cause__, KeyError)


@pytest.mark.parametrize("name", ["annotate", "bin_sorting", "maze", "open_x", "planar_pushing"])
def test_every_variant_passes_the_check(name):
    module = importlib.import_module(f"experiments.{name}.config")
    needs = {"open_x": ",clean=bridge_dataset", "labels": ",clean=bridge_dataset"}
    for variant in module.VARIANTS:
        options = needs.get(variant, "") if name == "annotate" else ""
        config_lib.check(module.get_config(variant + options))


def test_the_check_asks_for_no_device():
    """Else no host could join a run after it."""
    code = (
        "from experiments.maze import config; from ambient_jax.train import config as c; "
        "c.check(config.get_config('table')); from jax._src import xla_bridge; "
        "raise SystemExit(xla_bridge.backends_are_initialized())"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    assert subprocess.run([sys.executable, "-c", code], env=env, timeout=120).returncode == 0


def test_a_config_of_another_experiment_is_named():
    own = importlib.import_module("experiments.maze.config").get_config().task
    demo = importlib.import_module("experiments.open_x.config").get_config("demo").task
    with pytest.raises(ValueError, match=r"config.task.\w+ is missing: start from get_config"):
        checks.same_task(demo, own)
    other = importlib.import_module("experiments.bin_sorting.config").get_config().task
    with pytest.raises(ValueError, match="name is 'bin_sorting', expected 'maze'"):
        checks.same_task(other, own)
    checks.same_task(own, own)


def test_a_workdir_and_a_config_may_begin_with_the_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "c.py").write_text(
        "from ambient_jax.train import config\n\n\ndef get_config():\n    return config.default()\n"
    )
    values, rest = _parse("--config=~/c.py", "--workdir=~/run")
    assert launch.checked("open_x", rest, values)[1] == f"{tmp_path}/run"


def test_every_variant_that_a_document_names_is_there():
    """In the README, the pages and the docstrings of the configs."""
    files = [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("experiments/*/config.py")]
    texts = [path.read_text(encoding="utf-8") for path in files]
    named = {
        m for text in texts for m in re.findall(r"(experiments/\w+/config\.py:[\w,=+]+)", text)
    }
    assert len(named) > 15
    for each in named:
        path, variant = each.split(":")
        module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
        config = module.get_config(variant)
        if "train" in config:  # or of a study of trained policies
            config_lib.check(config)
