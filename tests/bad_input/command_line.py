"""Command lines with a slip in them, parsed as a command does, in this process."""

import sys

from absl import flags

from ambient_jax.cli import console, launch
from ambient_jax.train import parallel

DEMO = "experiments/open_x/config.py:demo"
DEFAULT = "from ambient_jax.train import config\n\n\ndef get_config():\n    c = config.default()\n"


def command(*argv, experiment="open_x"):
    """What ``python -m experiments.<experiment> <argv>`` does before its job."""

    def act(bench):
        line, values = ["program", *(a.format(path=bench.path) for a in argv)], flags.FlagValues()
        # The library would take what a file lacks from the one that it loaded before.
        bench.monkeypatch.delitem(sys.modules, "config_config", raising=False)
        launch.define(values, line)
        with console.one_line_errors():
            launch.checked(experiment, launch.parse(line, values), values)

    return act


def variant(experiment, name):
    return command(f"--config=experiments/{experiment}/config.py:{name}", experiment=experiment)


def file(text, *argv, name="mine.py", given="mine.py"):
    """The command with a config file of this text."""

    def act(bench):
        (bench.path / name).write_text(text)
        command(f"--config={{path}}/{given}", *argv)(bench)

    return act


def field(text):
    return command(f"--config={DEMO}", f"--config.{text}")


def joins(coordinator="", processes=0, index=-1, **options):
    return lambda bench: parallel.initialize(coordinator, processes, index, **options)


CASES = {
    "variant, open_x": (variant("open_x", "dmeo"), r"'dmeo', .*did you mean 'demo'"),
    "variant, maze": (variant("maze", "tabel"), r"'tabel', .*did you mean 'table'"),
    "variant, bin_sorting": (variant("bin_sorting", "quik"), r"'quik', .*did you mean 'quick'"),
    "variant, planar_pushing": (variant("planar_pushing", "scalin"), r"did you mean 'scaling'"),
    "variant, annotate": (variant("annotate", "mazes"), r"'mazes', .*did you mean 'maze'"),
    "variant, empty": (variant("open_x", ""), r"config variant is '', expected one of demo"),
    "option of none": (variant("maze", "quick,size=3"), r"'size', expected one of none for"),
    "option misspelt": (variant("open_x", "rtx,siz=base"), r"'siz', .*did you mean 'size'"),
    "option empty": (variant("open_x", "rtx,size="), r"'size', .*and its value"),
    "option twice": (variant("open_x", "rtx,size=base,size=large"), r"'size', .*each once"),
    "option's value": (variant("open_x", "rtx,size=larg"), r"size is 'larg'.*mean 'large'"),
    "option no number": (variant("open_x", "rtx,sigma_min=x"), r"sigma_min= is 'x', expected a n"),
    "option missing": (variant("annotate", "open_x"), r"clean= is missing.*config.py, line \d+"),
    "no config": (command(), r"--config is missing, expected for example --config=my_config.py"),
    "config without a value": (command("--config"), r"there is no file ''|[Mm]issing value"),
    "config empty": (command("--config="), r"there is no file ''"),
    "two configs": (command(f"--config={DEMO}", f"--config={DEMO}"), r"is given 2 times"),
    "an argument": (command(f"--config={DEMO}", "x"), r"unexpected arguments \['x'\]"),
    "flag misspelt": (command("--confg=x"), r"'confg'. Did you mean: config"),
    "flag no number": (command(f"--config={DEMO}", "--num_processes=x"), r"num_processes=x"),
    "a bucket": (command(f"--config={DEMO}", "--workdir=gs://x"), r"--workdir is 'gs://x'"),
    "field before config": (command("--config.seed=3", f"--config={DEMO}"), r"--config.seed=3"),
    "file absent": (file("", given="mnie.py"), r"no file .*mnie.py'.*did you mean 'mine.py'"),
    "file absent, a field": (
        file("", "--config.seed=3", given="mnie.py"),
        r"there is no file .*mnie.py'",
    ),
    "file is a folder": (command("--config={path}"), r"names a folder, expected a file"),
    "file empty": (file(""), r"mine.py has no function get_config"),
    "file with a misspelt function": (
        file("def get_confg():\n    pass\n"),
        r"has no function get_config.*did you mean 'get_confg'",
    ),
    "file with broken syntax": (file("x = 1\ndef get_config(:\n"), r"mine.py, line 2: invalid sy"),
    "file with broken indent": (file("def get_config():\nx = 1\n"), r"mine.py, line 2: expected "),
    "file with an absent import": (
        file("\n\nimport nothing_there\n"),
        r"No module named 'nothing_there' \(.*mine.py, line 3\)",
    ),
    "file with an absent name": (
        file("from ambient_jax.train.config import defualt\n"),
        r"ImportError: cannot import name 'defualt'.*mine.py, line 1",
    ),
    "get_config raises": (
        file("def get_config():\n    return {}['x']\n"),
        r"KeyError: 'x' \(.*mine.py, line 2\)",
    ),
    "get_config raises ValueError": (
        file("def get_config():\n    return int('3x')\n"),
        r"invalid literal for int.*mine.py, line 2\)",
    ),
    "get_config sets no field": (
        file(DEFAULT + "    c.train.lock()\n    c.train.stpes = 3\n    return c\n"),
        r"stpes.*mine.py, line 7\)",
    ),
    "get_config ends the program": (
        file("import sys\n\n\ndef get_config():\n    sys.exit(0)\n"),
        r"SystemExit: 0 \(.*mine.py, line 5\)",
    ),
    "get_config returns nothing": (file(DEFAULT), r"returned NoneType, expected an ml_collectio"),
    "get_config returns a dict": (file("def get_config():\n    return {}\n"), r"returned dict"),
    "a variant too many": (
        file(DEFAULT + "    return c\n", given="mine.py:x"),
        r"takes no variant, and 'x' was given",
    ),
    "a variant too few": (
        file("def get_config(name):\n    pass\n"),
        r"get_config .*needs a variant",
    ),
    "a field too many": (
        file(DEFAULT + "    c.train.stpes = 3\n    return c\n"),
        r"config.train.stpes is no field.*did you mean 'steps'",
    ),
    "no config of a training": (
        file(DEFAULT + "    del c.name\n    return c\n"),
        r"config.name is missing",
    ),
    "two dots": (field("train..steps=3"), r"config.train has no field ''"),
    "no field at all": (field("=3"), r"config has no field ''"),
    "no number": (field("train.steps=abc"), r"train.steps=abc: expected int such as 10000"),
    "a float": (field("train.steps=1e4"), r"train.steps=1e4: expected int such as 10000"),
    "no number, unset": (field("data.shards=many"), r"data.shards=many: expected int"),
    "an old name": (field("data.lanes=4"), r"lanes=4: .* a new name, config.data.shards"),
    "field misspelt": (field("train.stpes=3"), r"no field 'stpes'.*did you mean 'steps'"),
    "section misspelt": (field("trian.steps=3"), r"no field 'trian'.*did you mean 'train'"),
    "source misspelt": (field("data.sources.gsc.path=x"), r"no field 'gsc'.*did you mean 'gcs'"),
    "field of a source": (field("data.sources.gcs.pathh=x"), r"no field 'pathh'.*mean 'path'"),
    "field of a number": (field("train.steps.x=3"), r"config.train.steps is 10000, which has no f"),
    "a section": (field("train=3"), r"--config.train=3"),
    "no value": (field("train.steps"), r"config.train.steps"),
    "a number out of range": (field("train.b1=2.0"), r"config.train.b1 is 2.0"),
    "processes without a coordinator": (joins("", 2, 0), r"is 2 and process_id 0 and the coord"),
    "an index without a coordinator": (joins("", 0, 3), r"process_id 3 and the coordinator ''"),
    "processes with auto": (joins("auto", 2, 1), r"the coordinator 'auto', expected"),
    "coordinator without a port": (joins("10.0.0.1", 2, 0), r"'10.0.0.1', expected host:port"),
    "coordinator without a host": (joins(":1234", 2, 0), r"':1234', expected host:port"),
    "port no number": (joins("localhost:http", 2, 0), r"'localhost:http', expected host:port"),
    "port too large": (joins("localhost:99999", 2, 0), r"'localhost:99999', expected host:port"),
    "a link": (joins("http://localhost:1234", 2, 0), r"'http://localhost:1234', expected host:p"),
    "index too large": (joins("localhost:1234", 2, 2), r"num_processes is 2 and process_id 2"),
    "index negative": (joins("localhost:1234", 2, -1), r"num_processes is 2 and process_id -1"),
    "no processes": (joins("localhost:1234", 0, 0), r"num_processes is 0 and process_id 0"),
    "no time": (joins("localhost:1234", 2, 1, timeout=0), r"timeout is 0, expected at least 1"),
    "nobody at the coordinator's": (
        joins("localhost:1", 2, 1, timeout=1),
        r"no coordinator answers at localhost:1 within 1 s",
    ),
}
