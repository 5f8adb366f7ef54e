"""The commands, run as a user runs them, and the JSON that they print."""

from __future__ import annotations

import csv
import json
import os
import statistics
import subprocess
import sys

import pyarrow
import pyarrow.parquet
import pytest
from conftest import sentiment_rows, write_jsonl
from typer.testing import CliRunner

from promptpanda.cli.main import app
from promptpanda.tasks.catalog import catalog_spec
from promptpanda.tasks.spec import TaskSpec
from promptpanda.transfers.estimators import estimators

FAST = ["--epochs", "1", "--max-length", "24", "--prompt-length", "4"]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def panda(tiny_folder, tmp_path, monkeypatch):
    """Run `panda` in a folder with a data root and own files; returns stdout."""
    monkeypatch.chdir(tmp_path)
    for name, seed in (("books", 5), ("films", 6), ("mood", 0)):
        write_jsonl(tmp_path / f"{name}.jsonl", sentiment_rows(40, seed))
        write_jsonl(tmp_path / f"{name}-test.jsonl", sentiment_rows(20, seed + 100))

    def run(*arguments: str, code: int = 0, stdin: str | None = None) -> str:
        result = CliRunner().invoke(app, list(arguments), input=stdin)
        assert result.exit_code == code, f"{result.stdout}\n{result.stderr}\n{result.exception!r}"
        return result.stdout

    return run


def own(name, test=True):
    files = ["--train", f"{name}.jsonl", "--text", "text", "--label", "label", "--name", name]
    return files + (["--test", f"{name}-test.jsonl"] if test else [])


def test_train_transfer_evaluate_predict(panda, model, tmp_path):
    trained = json.loads(panda("train", *own("books"), *model, *FAST, "--seeds", "0,1", "--json"))
    assert set(trained) == {"prompts", "metric", "validation", "n_train", "n_val", "seconds"}
    assert (trained["n_train"], trained["n_val"], trained["metric"]) == (32, 8, "accuracy")
    assert len(trained["prompts"]) == len(trained["validation"]) == 2
    panda("train", *own("films"), *model, *FAST)

    ranked = json.loads(panda("rank", *own("mood"), *model, "--max-length", "24", "--json"))
    assert ranked["target"] == "mood"
    assert [set(entry) for entry in ranked["ranking"]] == [{"prompt", "task", "scores"}] * 3
    free = {"same_format", "cosine", "on", "logme", "h_score", "probe", "probe_r2", "probe_shrunk"}
    assert set(ranked["ranking"][0]["scores"]) == free
    assert set(ranked["no_transfer"]) == {"logme", "h_score", "probe", "probe_r2", "probe_shrunk"}
    fuller = json.loads(panda("rank", *own("mood"), *model, *FAST, "--with-target-prompt", "--json"))
    assert set(fuller["ranking"][0]["scores"]) == free | {"cosine_own", "on_own", "e_avg"}

    options = ["--cosine-layer", "1", "--cosine-pooling", "first", "--cosine-examples", "5"]
    other = json.loads(panda("rank", *own("mood"), *model, "--max-length", "24", *options, "--json"))
    scores = [{entry["prompt"]: entry["scores"] for entry in one["ranking"]} for one in (ranked, other)]
    assert all(scores[0][name]["on"] == scores[1][name]["on"] for name in scores[0])
    assert all(scores[0][name]["cosine"] != scores[1][name]["cosine"] for name in scores[0])

    settings = ["--epochs", "1", "--max-length", "24", "--train-examples", "30", "--seeds", "0,1"]
    result = json.loads(panda("transfer", *own("mood"), *model, *settings, "--source", "best", "--json"))
    assert set(result) == {
        *("target", "source", "protocol", "metric", "n_train", "n_val", "n_test", "seeds", "methods"),
        *("transferability", "cost", "chosen", "prompt", "constant", "left_out", "frozen_embeddings"),
    }
    assert result["left_out"] == ranked["left_out"] == []
    assert (result["n_train"], result["n_val"], result["n_test"], result["seeds"]) == (22, 8, 20, [0, 1])
    for method in result["methods"].values():
        assert set(method) == {"mean", "std", "scores", "validation", "seconds"}
        assert len(method["scores"]) == len(method["validation"]) == 2
    assert result["methods"]["panda"]["seconds"] > result["methods"]["pot"]["seconds"]

    scored = json.loads(panda("evaluate", result["prompt"], *own("mood"), *model, "--json"))
    assert {"metric", "score", "low", "high", "n_test", "metrics", "per_class", "confusion"} <= set(scored)
    assert scored["metrics"]["accuracy"] == scored["score"]
    assert set(scored["metrics"]) == {"accuracy", "balanced_accuracy", "macro_f1"}
    best = result["methods"][result["chosen"]]["scores"]
    assert scored["score"] in best
    assert scored["n_test"] == 20

    lines = panda("predict", result["prompt"], "mood-test.jsonl").splitlines()
    assert len(lines) == 20
    first = json.loads(lines[0])
    assert first["label"] in first["probabilities"]
    assert sum(first["probabilities"].values()) == pytest.approx(1.0)
    typed = panda("predict", "mood", "--json", stdin="the phone is good\nthe screen is broken\n").splitlines()
    assert [set(json.loads(line)) for line in typed] == [{"label", "probabilities"}] * 2


def test_a_finished_training_is_not_repeated(panda, model, tmp_path):
    first = json.loads(panda("train", *own("books"), *model, *FAST, "--json"))
    card = tmp_path / first["prompts"][0] / "card.json"
    before = card.stat().st_mtime_ns
    assert json.loads(panda("train", *own("books"), *model, *FAST, "--json")) == first
    assert card.stat().st_mtime_ns == before
    other = json.loads(panda("train", *own("books"), *model, *FAST, "--lr", "0.001", "--json"))
    assert other["prompts"] != first["prompts"]


def test_a_task_without_test_data(panda, model):
    panda("train", *own("books"), *model, *FAST)
    arguments = [*own("mood", test=False), *model, "--epochs", "1", "--max-length", "24", "--source", "books"]
    result = json.loads(panda("transfer", *arguments, "--json"))
    assert result["n_test"] == 0
    assert all(method["scores"] is None for method in result["methods"].values())
    assert result["frozen_embeddings"]["scores"] is None
    table = panda("transfer", *arguments)
    assert "no test data" in table
    assert "(logistic regression on frozen embeddings, cross-validated)" in table


def test_the_figures_of_a_transfer_agree_with_each_other(panda, model, tmp_path):
    panda("train", *own("books"), *model, *FAST)
    arguments = ["transfer", *own("mood"), *model, "--epochs", "2", "--max-length", "24", "--source", "books", "--json"]
    result = json.loads(panda(*arguments, "--seeds", "3,1"))
    assert list(result["methods"]) == ["prompt_tuning", "pot", "panda"]
    assert (result["seeds"], result["protocol"], result["target"]) == ([3, 1], "clean", "mood")
    assert result["source"].startswith("books-s0-")
    for method in result["methods"].values():
        assert method["mean"] == pytest.approx(statistics.fmean(method["scores"]))
        assert method["std"] == pytest.approx(statistics.stdev(method["scores"]))
        assert method["seconds"] > 0
        assert all(0 <= score <= 1 for score in (*method["scores"], *method["validation"]))
    means = {name: statistics.fmean(method["validation"]) for name, method in result["methods"].items()}
    assert means[result["chosen"]] == max(means.values())
    card = json.loads((tmp_path / result["prompt"] / "card.json").read_text())
    assert (card["method"], card["validation"]["accuracy"]) == (
        result["chosen"],
        max(result["methods"][result["chosen"]]["validation"]),
    )
    assert set(result["transferability"]) == set(estimators())
    similarities = ("cosine", "on", "cosine_own", "on_own", "e_avg")
    assert all(-1 <= result["transferability"][name] <= 1 for name in similarities)
    assert result["cost"] > 3, "three trainings a seed, and the forward passes"

    one = json.loads(panda(*arguments, "--methods", "pot"))
    assert list(one["methods"]) == ["pot"]
    assert one["methods"]["pot"]["std"] is None, "one seed has no standard deviation"
    assert one["methods"]["pot"]["mean"] == one["methods"]["pot"]["scores"][0]
    assert 1 < one["cost"] < 3
    limited = json.loads(panda(*arguments, "--methods", "prompt_tuning", "--test-examples", "5"))
    assert (limited["n_test"], limited["source"]) == (5, None)


def test_the_paper_protocol_says_so(panda, model, tmp_path):
    panda("train", *own("books"), *model, *FAST)
    write_jsonl(tmp_path / "official.jsonl", sentiment_rows(12, 9))
    paper = [*own("mood"), "--validation", "official.jsonl", "--protocol", "paper", *model]
    result = json.loads(panda("transfer", *paper, "--epochs", "1", "--max-length", "24", "--source", "books", "--json"))
    assert (result["protocol"], result["n_train"], result["n_val"], result["n_test"]) == ("paper", 40, 12, 12)
    for method in result["methods"].values():
        assert method["scores"] == method["validation"]
    shown = panda("transfer", *paper, "--epochs", "1", "--max-length", "24", "--source", "books")
    assert "paper protocol" in shown
    assert "12 official validation examples, which also chose the epoch" in shown


def test_tables_name_what_they_show(panda, model):
    shown = panda("train", *own("books"), *model, *FAST)
    assert "accuracy on 8 validation examples after training on 32 (clean protocol)" in shown
    assert "cosine" in panda("rank", *own("mood"), *model, "--max-length", "24")
    shown = panda("transfer", *own("mood"), *model, "--epochs", "1", "--max-length", "24", "--seeds", "0,1")
    for fragment in (
        "20 test examples",
        "32 training and 8 validation examples",
        "seeds 0,1",
        "contrastive",
        "Next: panda",
    ):
        assert fragment in shown
    assert "on 20 test examples of mood" in panda("evaluate", "mood", *own("mood"), *model)


def test_train_never_reads_test_data_nor_official_validation_data(panda, model, tmp_path):
    for name in ("mood-test", "official"):
        (tmp_path / f"{name}.jsonl").write_text("broken")
    panda("train", *own("mood"), "--validation", "official.jsonl", *model, *FAST)


def test_all_kinds_of_files_and_specs_are_tasks(panda, model, tmp_path):
    """CSV, Parquet, a YAML spec, a folder of a data root: the same rows give the same prompt."""
    rows = sentiment_rows(40, 5)
    with (tmp_path / "books.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "books.parquet")
    columns = ["--text", "text", "--label", "label", *model, *FAST, "--json"]
    prompts = {
        ending: json.loads(panda("train", "--train", f"books.{ending}", *columns))["prompts"][0]
        for ending in ("jsonl", "csv", "parquet")
    }
    assert len(set(prompts.values())) == 1
    card = json.loads((tmp_path / prompts["csv"] / "card.json").read_text())
    spec = card["task"] | {"labels": card["labels"], "files": None}
    (tmp_path / "books.yaml").write_text(json.dumps(spec | {"files": {"train": "books.csv", "test": "books.jsonl"}}))
    path = json.loads(panda("train", "books.yaml", *model, *FAST, "--json"))["prompts"][0]
    assert json.loads(panda("evaluate", path, "--json", *model))["n_test"] == 40, "the spec's own test data"
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "books").mkdir()
    (tmp_path / "books.csv").rename(tmp_path / "root" / "books" / "train.csv")
    (tmp_path / "books.yaml").write_text(json.dumps(spec))
    assert json.loads(panda("train", "books.yaml", "--data-dir", "root", *model, *FAST, "--json"))["prompts"] == [path]


def test_a_catalog_task_from_a_data_root(panda, model, tmp_path):
    names = ("not_entailment", "entailment")
    rows = [
        {"premise": row["text"], "hypothesis": f"w{number}", "label": names[number % 2]}
        for number, row in enumerate(sentiment_rows(60))
    ]
    write_jsonl(tmp_path / "root" / "rte" / "train.jsonl", rows[:40])
    write_jsonl(tmp_path / "root" / "rte" / "validation.jsonl", [row | {"label": 0} for row in rows[40:]])
    trained = json.loads(panda("train", "rte", "--data-dir", "root", *model, *FAST, "--json"))
    assert (trained["n_train"], trained["n_val"]) == (32, 8)
    assert json.loads(panda("evaluate", "rte", "--data-dir", "root", "--json"))["n_test"] == 20
    (line, *_) = panda("predict", "rte", "root/rte/validation.jsonl").splitlines()
    assert set(json.loads(line)["probabilities"]) == set(names)


def test_pairs_of_texts(panda, model, tmp_path):
    rows = [{"a": row["text"], "b": f"w{n}", "same": row["label"]} for n, row in enumerate(sentiment_rows(40))]
    write_jsonl(tmp_path / "pairs.jsonl", rows)
    columns = ["--text", "a", "--text2", "b", "--label", "same"]
    trained = json.loads(panda("train", "--train", "pairs.jsonl", *columns, *model, *FAST, "--json"))
    card = json.loads((tmp_path / trained["prompts"][0] / "card.json").read_text())
    assert (card["task"]["kind"], card["labels"]) == ("pair_classification", ["bad", "good"])
    write_jsonl(tmp_path / "new.jsonl", [{"b": "w1", "a": "the phone is good"}, {"a": "bad", "b": "w2", "more": 1}])
    lines = [json.loads(line) for line in panda("predict", "pairs", "new.jsonl").splitlines()]
    assert [set(line) for line in lines] == [{"label", "probabilities"}] * 2
    for line in lines:
        assert line["label"] == max(line["probabilities"], key=line["probabilities"].get)
        assert sum(line["probabilities"].values()) == pytest.approx(1.0)
    scored = json.loads(panda("evaluate", "pairs", "--test", "pairs.jsonl", *columns, *model, "--json"))
    assert scored["n_test"] == 40


def test_predictions_do_not_depend_on_the_company_of_a_text(panda, model, tmp_path):
    panda("train", *own("books"), *model, *FAST)
    together = [json.loads(line) for line in panda("predict", "books", "mood-test.jsonl").splitlines()]
    texts = [row["text"] for row in sentiment_rows(20, 100)]
    for text, prediction in list(zip(texts, together, strict=True))[:4]:
        alone = json.loads(panda("predict", "books", stdin=f"{text}\r\n\n"))
        assert alone["label"] == prediction["label"]
        assert alone["probabilities"] == pytest.approx(prediction["probabilities"], abs=1e-5)
    assert panda("predict", "books", stdin="") == ""


def test_pairs_and_regression(panda, model, tmp_path):
    rows = [{"a": row["text"], "b": f"w{n}", "score": 1.5 * n} for n, row in enumerate(sentiment_rows(30))]
    write_jsonl(tmp_path / "pairs.jsonl", rows)
    columns = ["--train", "pairs.jsonl", "--text", "a", "--text2", "b", "--label", "score", "--kind", "regression"]
    trained = json.loads(panda("train", *columns, *model, *FAST, "--json"))
    assert trained["metric"] == "pearson_spearman"
    values = panda("predict", "pairs", "pairs.jsonl").splitlines()
    assert all(isinstance(json.loads(line)["value"], float) for line in values)
    card = json.loads(panda("bank", "show", "pairs", "--json"))
    assert card["task"]["segments"] == ["{a}", "{b}"]


def test_bank_commands(panda, model, tmp_path):
    assert "empty" in panda("bank", "list", "--no-starter")
    panda("train", *own("books"), *model, *FAST, "--seeds", "0,1")
    listed = json.loads(panda("bank", "list", "--no-starter", "--json"))["prompts"]
    names = [row["id"] for row in listed]
    assert len(names) == 2
    assert names[0] in panda("bank", "list")
    assert "2 of 2 prompts are intact" in panda("bank", "verify", "--no-starter")
    assert json.loads(panda("bank", "list", "--no-starter", "--json"))["problems"] == []
    best = max(listed, key=lambda row: (row["validation"], -row["seed"]))
    assert json.loads(panda("bank", "show", "books", "--json"))["id"] == best["id"], "a task's name is its best prompt"
    assert json.loads(panda("bank", "show", f"bank/{names[1]}")) == json.loads(
        panda("bank", "show", names[1], "--json")
    )
    weights = tmp_path / "bank" / names[0] / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert list(json.loads(panda("bank", "verify", "--no-starter", "--json", code=2))["problems"]) == [names[0]]
    assert json.loads(panda("bank", "rm", names[0], "--json")) == {"removed": [names[0]]}
    assert json.loads(panda("bank", "verify", "--no-starter", "--json"))["sound"] == names[1:]


def test_other_kinds_through_standard_input_and_files(panda, tiny_folder, tmp_path):
    model = ["--model", str(tiny_folder("bert"))]
    short = ["--epochs", "1", "--prompt-length", "4", "--max-length", "24"]
    rows = [{"q": "good", "c": f"the phone w{n} is good", "a": f"w{n}"} for n in range(20)]
    write_jsonl(tmp_path / "qa.jsonl", rows)
    own_qa = ["--text", "q", "--text2", "c", "--label", "a", "--kind", "extractive_qa"]
    found = json.loads(panda("train", "--train", "qa.jsonl", *own_qa, *model, *short, "--json"))
    by_file = panda("predict", found["prompts"][0], "qa.jsonl")
    assert len(by_file.splitlines()) == 20
    text = (tmp_path / "qa.jsonl").read_text()
    assert panda("predict", found["prompts"][0], stdin=text) == by_file
    assert panda("predict", found["prompts"][0], "-", stdin=text) == by_file
    line = json.loads(by_file.splitlines()[0])
    assert rows[0]["c"][line["start"] :].startswith(line["answer"])
    scored = json.loads(panda("evaluate", found["prompts"][0], "--test", "qa.jsonl", *own_qa, "--json"))
    assert set(scored["metrics"]) == {"squad_f1", "squad_em"}


def test_a_prompt_is_evaluated_by_the_template_that_it_was_trained_with(panda, tiny_folder, tmp_path):
    words = ["good", "bad", "phone"]
    rows = [
        {"word": words[n % 3], "sentence1": f"{words[n % 3]} w{n}", "sentence2": f"the {words[n % 3]}", "start1": 0,
         "end1": len(words[n % 3]), "start2": 4, "end2": 4 + len(words[n % 3]), "label": n % 2} for n in range(40)
    ]  # fmt: skip
    for split in ("train", "validation"):
        write_jsonl(tmp_path / "data" / "wic" / f"{split}.jsonl", rows)
    data = ["--data-dir", "data", "--model", str(tiny_folder("bert"))]
    short = ["--epochs", "1", "--prompt-length", "4", "--max-length", "40"]
    prompts = {
        name: json.loads(panda("train", "wic", *data, *short, *options, "--json"))["prompts"][0]
        for name, options in {"plain": [], "marked": ["--template", "marked"]}.items()
    }
    assert prompts["plain"] != prompts["marked"]
    for name, prompt in prompts.items():
        by_default = json.loads(panda("evaluate", prompt, "--data-dir", "data", "--json"))
        named = json.loads(panda("evaluate", prompt, "wic", "--data-dir", "data", "--json"))
        assert by_default == named, name


def test_tasks_and_doctor(panda, tmp_path):
    listed = json.loads(panda("tasks", "list", "--data-dir", str(tmp_path), "--json"))["tasks"]
    assert {"rte", "newsgroups_religion"} <= {row["name"] for row in listed}
    assert not next(row for row in listed if row["name"] == "rte")["local"]
    write_jsonl(tmp_path / "rte" / "train.jsonl", [{"premise": "a", "hypothesis": "b", "label": 0}])
    listed = json.loads(panda("tasks", "list", "--data-dir", str(tmp_path), "--json"))["tasks"]
    assert next(row for row in listed if row["name"] == "rte")["local"]
    shown = panda("tasks", "show", "rte")
    (tmp_path / "copy.yaml").write_text(shown)
    assert panda("tasks", "show", "copy.yaml") == shown
    content = json.loads(panda("tasks", "show", "rte", "--json"))
    assert TaskSpec.parse(content, "a test") == catalog_spec("rte")
    for row in listed:
        assert set(row) == {"name", "kind", "metric", "labels", "local", "sizes", "hub"}
    facts = json.loads(panda("doctor", "--data-dir", str(tmp_path), "--json"))
    assert facts["cores"] >= 1
    assert {"python", "torch", "transformers", "device", "embedded model", "data root"} <= set(facts)
    assert (facts["prompts in the bank"], facts["tasks with data here"] >= 1) == (0, True)
    assert "torch" in panda("doctor")


def test_other_model_families_and_prompt_kinds(panda, tiny_folder):
    for family, extra in (("llama", ["--gradient-checkpointing"]), ("distilbert", ["--reparameterize", "8"])):
        folder = ["--model", str(tiny_folder(family))]
        trained = json.loads(panda("train", *own("books"), *folder, *FAST, *extra, "--json"))
        assert "n_test" in panda("evaluate", trained["prompts"][0], *own("books"), *folder, "--json")
    kinds = ["--prompt-kind", "shallow", "--init-std", "0.5", "--dropout", "0", "--early-stopping", "1"]
    panda("train", *own("books"), "--model", str(tiny_folder("roberta")), *FAST, *kinds)


def test_json_is_all_there_is_on_stdout(tiny_folder, tmp_path):
    """In a process of its own: whatever libraries print must not get between."""
    write_jsonl(tmp_path / "books.jsonl", sentiment_rows(40))
    command = [sys.executable, "-c", "from promptpanda.cli.main import main; main()", "train", *own("books", False)]
    command += ["--model", str(tiny_folder("bert")), *FAST, "--json", "--offline"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=1000)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    assert json.loads(done.stdout)["metric"] == "accuracy"
    assert "books seed 0 prompt_tuning" in done.stderr


def test_interrupting_keeps_what_is_finished(tiny_folder, tmp_path):
    """SIGINT while the second seed trains: exit code 130, one sentence, the first seed's prompt in the bank."""
    import signal
    import time

    write_jsonl(tmp_path / "books.jsonl", sentiment_rows(60))
    command = [sys.executable, "-c", "from promptpanda.cli.main import main; main()", "train", *own("books", False)]
    command += ["--model", str(tiny_folder("bert")), *FAST, "--epochs", "100", "--seeds", "0,1,2,3,4,5,6,7"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs ignore SIGINT, and hand that on to whatever they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 1000
    while not list(tmp_path.glob("bank/books-s0-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=1000)
    assert output == ""
    assert process.returncode == 130
    assert errors.strip().endswith("Interrupted; what was finished is kept.")
    assert "Traceback" not in errors
    kept = sorted(path.name for path in (tmp_path / "bank").iterdir())
    assert kept
    assert all(name.startswith("books-s") for name in kept), "a half-written prompt was left"


def test_offline_takes_effect_before_the_hub_is_imported(tmp_path):
    code = (
        "import sys; from promptpanda.cli.main import app; sys.argv = ['panda', *sys.argv[1:]]\n"
        "try: app()\n"
        "finally: import huggingface_hub.constants as hub; print('offline' if hub.HF_HUB_OFFLINE else 'online')"
    )
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    write_jsonl(tmp_path / "books.jsonl", sentiment_rows(40))
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, *command, "--model", "nobody/nothing", "--offline"],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for command in (["train", *own("books", False)], ["transfer", *own("books", False)], ["evaluate", "books"])
    ]
    for process in started:
        stdout, stderr = process.communicate(timeout=1000)
        assert process.returncode == 2
        assert stdout.strip() == "offline", stderr
        assert len([line for line in stderr.splitlines() if line.startswith("panda: ")]) == 1
        assert "Traceback" not in stderr


def test_errors_of_a_real_process(tmp_path):
    code = "from promptpanda.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "tasks", "show", "rtee", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=1000,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("panda: No task 'rtee'")
    assert done.stderr.count("\n") == 1


def test_help_names_all_commands(panda):
    shown = panda("--help")
    assert shown == panda("-h")
    for name in ("demo", "tasks", "train", "rank", "transfer", "evaluate", "predict", "bank", "doctor"):
        assert name in shown
        assert "Usage" in panda(name, "--help")


def test_help_imports_nothing_heavy():
    code = (
        "import sys, promptpanda.cli.main; "
        "heavy = {'torch', 'transformers', 'datasets', 'peft', 'accelerate', 'sklearn', 'scipy', 'pandas'}; "
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=1000)
    assert done.returncode == 0, done.stderr
