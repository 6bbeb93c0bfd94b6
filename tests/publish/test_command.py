"""The command ``python -m ambient_jax.publish``: its flags, and one line for each mistake."""

import pathlib
import re
import runpy
import shutil
import sys

import pytest
from absl import flags, logging

from ambient_jax.policy.policy import Policy
from ambient_jax.publish import hub
from ambient_jax.train import remote_files
from tests.publish import made


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return made.workdir(tmp_path_factory.mktemp("run"))


@pytest.fixture
def publish(monkeypatch, tmp_path):
    """``publish(*flags)`` runs the command in this process; returns its exit's text, "" for 0."""
    monkeypatch.chdir(tmp_path)
    verbosity, parsed = logging.get_verbosity(), flags.FLAGS.is_parsed()
    names = ("checkpoint", "out", "license", "push", "private", "overwrite")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["publish", *arguments])
        try:
            runpy.run_module("ambient_jax.publish", run_name="__main__")
        except SystemExit as end:
            return "" if end.code in (None, 0) else str(end.code)
        finally:
            for name in names:
                if name in flags.FLAGS:
                    delattr(flags.FLAGS, name)
            flags.FLAGS.unparse_flags()
        return ""

    yield run
    logging.set_verbosity(verbosity)
    if parsed:
        flags.FLAGS(["tests"])


def test_it_writes_the_folder_and_says_where(publish, workdir, tmp_path, capsys):
    assert publish(f"--checkpoint={workdir}") == ""
    assert capsys.readouterr().out == (
        f"{workdir}/policy is the policy, its card is {workdir}/policy/README.md\n"
    )
    step = workdir / "checkpoints" / str(made.STEP)
    assert publish(f"--checkpoint={step}", "--out=out", "--license=mit") == ""
    assert "license: mit\n" in pathlib.Path("out/README.md").read_text()
    assert Policy.from_checkpoint("out").dims == {"state": 3}


def test_a_workdir_in_a_bucket_gets_its_policy(publish, workdir, place, capsys):
    run = place[0] / "run"
    remote_files.upload(workdir / "checkpoints" / str(made.STEP), run / "checkpoints", "20")
    (run / "metrics.jsonl").upload(workdir / "metrics.jsonl")
    assert publish(f"--checkpoint={run}") == ""
    assert capsys.readouterr().out.startswith(f"{run}/policy is the policy, its card is {run}/pol")
    assert publish(f"--checkpoint={workdir}", "--out=local") == ""
    for file in pathlib.Path("local").iterdir():
        assert (run / "policy" / file.name).read_bytes() == file.read_bytes()
    assert publish(f"--checkpoint={run / 'checkpoints' / '20'}", "--out=copy") == ""
    assert Policy.from_checkpoint("copy").dims == {"state": 3}
    assert "expected --out=<folder> with" in publish(f"--checkpoint={run}", "--push=me/mine")


@pytest.mark.parametrize("out", ["gs://b/policy", "s3://b/policy", "hf://me/policy"])
def test_a_policy_is_written_to_a_disk_alone(publish, workdir, out):
    line = publish(f"--checkpoint={workdir}", f"--out={out}")
    assert f"--out is {out!r}, expected a local path" in line
    assert not list(pathlib.Path().iterdir())


def test_it_pushes_what_it_wrote_or_a_folder_as_it_is(publish, workdir, tmp_path, monkeypatch):
    pushed = []
    monkeypatch.setattr(hub, "push", lambda *given, **options: pushed.append((given, options)))
    assert publish(f"--checkpoint={workdir}", "--out=a", "--push=ann/a") == ""
    card = tmp_path / "a" / "README.md"
    card.write_text(card.read_text() + "Mine.\n")
    assert publish("--checkpoint=a", "--push=ann/b", "--private") == ""
    assert pushed[0] == ((tmp_path / "a", "ann/a"), {"private": False})
    assert pushed[1] == (("a", "ann/b"), {"private": True})
    assert card.read_text().endswith("Mine.\n")
    lost = publish(f"--checkpoint={workdir}", "--out=a", "--push=ann/a")
    assert "README.md was edited, and would be lost" in lost and len(pushed) == 2
    assert publish(f"--checkpoint={workdir}", "--out=a", "--overwrite") == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "expected --checkpoint=<workdir of a trained policy>"),
        (("--checkpoint=nowhere",), "no finished checkpoint at .*/nowhere"),
        (("--checkpoint={policy}",), "is a policy folder, expected --push=user/name and no other"),
        (("--checkpoint={policy}", "--push=a/b", "--out=c"), "is a policy folder, expected --push"),
        (("--checkpoint={policy}", "--push=ann"), "repository is 'ann', expected user/name"),
        (("--checkpoint={alone}",), "is in no workdir, expected --out=<folder to write>"),
        (("--checkpoint={workdir}", "--out={workdir}"), "which is no part of a policy folder"),
        (("--checkpoint={workdir}", "--license=a b"), "license is 'a b', expected an identifier"),
        (("--chekpoint=x",), "Unknown command line flag 'chekpoint'"),
    ],
)
def test_a_mistake_is_one_line(publish, workdir, tmp_path, arguments, message):
    publish(f"--checkpoint={workdir}", "--out=policy")
    shutil.copytree(workdir / "checkpoints" / str(made.STEP), "alone/20")
    places = {"policy": "policy", "workdir": workdir, "alone": tmp_path / "alone" / "20"}
    told = publish(*(argument.format(**places) for argument in arguments))
    line, *hint = told.splitlines()
    assert hint == ["(--verbosity=1 shows the traceback)"] and line.startswith("error: ")
    assert re.search(message, line), line


def test_without_the_package_of_the_hub_it_says_how_to_install_it(publish, workdir, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    told = publish(f"--checkpoint={workdir}", "--out=a", "--push=ann/a")
    assert told.startswith("error: the hub needs the package 'huggingface_hub'")
    assert "pip install 'ambient_jax[hub]'" in told
