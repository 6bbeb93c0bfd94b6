"""The model card says what the run recorded, in the form that the hub reads."""

import json

import pytest
import yaml

from ambient_jax.train import publication
from tests.publish import made


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = made.workdir(tmp_path_factory.mktemp("run"))
    reports = {
        "evaluation/val": (made.STEP, "| source | loss |\n|---|---|\n| good | 0.1234 |\n"),
        "rollouts/maze/20": (made.STEP, "| success |\n|---|\n| 87.5% |\n"),
        "report": (None, "| policy | success |\n|---|---|\n| mine | 91% |\n"),
        "evaluation/old": (10, "| of an older step |\n"),
        "checkpoints_by_loss": (None, "| of all steps |\n"),
    }
    for name, (step, table) in reports.items():
        (workdir / name).mkdir(parents=True)
        results = {"levels": [0.5]} | ({"step": step} if step else {})
        (workdir / name / "results.json").write_text(json.dumps(results))
        (workdir / name / "table.md").write_text(table)
    (workdir / "evaluation" / "torn").mkdir()
    (workdir / "evaluation" / "torn" / "results.json").write_text('{"step"')
    return workdir


@pytest.fixture(scope="module")
def card(run):
    return (publication.write(run, license="cc-by-4.0") / "README.md").read_text()


def _row(card, start):
    [line] = [line for line in card.splitlines() if line.startswith(f"| {start} |")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_its_metadata_are_those_of_the_hub(card):
    _, metadata, body = card.split("---\n", 2)
    metadata = yaml.safe_load(metadata)
    assert metadata["license"] == "cc-by-4.0" and "Its licence is cc-by-4.0." in body
    assert metadata["library_name"] == "ambient_jax" and metadata["pipeline_tag"] == "robotics"
    assert {"robotics", "diffusion-policy"} <= set(metadata["tags"])
    assert body.startswith("\n# mine\n")


def test_huggingface_hub_reads_it(card):
    hub = pytest.importorskip("huggingface_hub")
    data = hub.ModelCard(card).data
    assert (data.license, data.library_name) == ("cc-by-4.0", "ambient_jax")


def test_it_tells_of_the_data_and_their_bounds(card):
    columns = ["role", "split", "episodes", "chunks", "weight", "sigma_min", "sigma_max"]
    rows = card.split("## Data")[1].split("##")[0]
    assert _row(rows, "name") == columns
    assert _row(rows, "good") == ["clean", "train[:90%]", "12", "150", "1", "0", "1"]
    assert _row(rows, "bad") == ["corrupt", "train", "40", "500", "0.5", "0.3", "0"]
    assert _row(rows, "graded") == ["corrupt", "train", "7", "80", "1", "file", "file"]
    assert (
        "Bounds file of `graded` (method classifier): 80 steps, 25.0% of them clean at all levels, "
        "12.5% at none; of the others, sigma_min is 0.2, 0.3 and 0.41 at the quantiles 5, 50 and "
        "95 %; 0.0% also train low levels" in card
    )
    assert "`good` 1234, `bad` 5678" in card
    assert "1 clean data set and 2 corrupt data sets" in card


def test_it_tells_of_the_training(run, card):
    assert _row(card, "law")[0].startswith("ambient: Hard bounds: ")
    assert _row(card, "noise schedule")[0].startswith("vp: Variance preserving")
    assert _row(card, "loss") == ["denoising loss, predicts eps"]
    assert _row(card, "network") == ["unet (blocks 1, embed_dim 16, features 8, groups 2)"]
    tensors = publication.checkpoint.load_policy_assets(run)["params"]
    size = sum(leaf.size for leaf in publication.folder.flat(tensors).values())
    assert _row(card, "parameters") == [f"{size:,}"]
    assert _row(card, "steps") == ["20 of 20,000"]
    assert _row(card, "batch size") == ["128 (2,560 samples drawn)"]
    assert _row(card, "seed") == ["0"]
    assert _row(card, "versions") == ["ambient_jax 0.2.0, jax 0.10.2"]


def test_it_tells_of_the_interface_and_how_to_load_it(card):
    assert _row(card, "`state`") == ["[B, 2, 3]", "units of the data"]
    assert _row(card, "returned actions") == ["[B, 8, 2]", "units of the data"]
    assert 'policy({"state": state}, jax.random.key(0))' in card
    assert "hf://user/name" in card and "python -m ambient_jax.serve --checkpoint=" in card
    assert "Solver: ddim, 2 steps." in card


def test_it_has_the_losses_of_its_step(card):
    rows = card.split("## Losses at the end")[1].split("##")[0]
    assert _row(rows, "good") == ["0.75", "0.25"] and _row(rows, "bad") == ["0.0625", "0.75"]
    assert _row(rows, "all") == ["0.5", "1"] and "logged at step 20;" in rows
    assert "graded" not in rows


def test_it_has_the_reports_on_its_step(card):
    assert "## Results: evaluation/val\n\n| source | loss |" in card and "0.1234" in card
    assert "## Results: report\n" in card and "91%" in card
    assert "## Results: rollouts/maze/20\n" in card and "87.5%" in card
    assert "older step" not in card and "of all steps" not in card and "torn" not in card


def test_of_an_older_checkpoint_it_says_what_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(made, "FACTS", {})
    workdir = made.workdir(tmp_path / "run")
    (workdir / "metrics.jsonl").unlink()
    card = (publication.write(workdir) / "README.md").read_text()
    assert _row(card, "bad") == ["corrupt", "train", "unknown", "unknown", "0.5", "0.3", "0"]
    assert "license: unknown\n" in card and "Nobody has stated its licence." in card
    assert "## Losses" not in card
    assert _row(card, "versions") == [f"ambient_jax {made.checkpoint.__version__}"]


def test_a_stated_licence_stays_and_a_wrong_one_is_told(run, card):
    again = (publication.write(run) / "README.md").read_text()
    assert again == card
    with pytest.raises(ValueError, match="license is 'MIT License', expected an identifier such"):
        publication.write(run, license="MIT License")


def test_names_that_markdown_or_yaml_would_read_are_escaped(tmp_path):
    config = made.config("yes: | *all*")
    config.data.sources["a|b\nc"] = config.data.sources.good
    with config.unlocked():
        del config.data.sources.good
    card = (
        publication.write(made.workdir(tmp_path / "run", config=config)) / "README.md"
    ).read_text()
    yaml.safe_load(card.split("---\n")[1])
    assert "| a\\|b c | clean |" in card
