"""The list of what runs when is refused before anything is scheduled, and has one meaning wherever
it is deployed.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from deployments.backfill import lacking
from deployments.schedules import ScheduledRun, ScheduleError, read_schedules
from tests.tasks.tiny_store import SPEC, answer

DEPLOYMENTS = Path(__file__).parents[2] / "deployments"
GOOD = {"study": "smoke", "store": "answers", "cron": "0 2 * * *"}


def listed(folder: Path, *entries: object) -> Path:
    file = folder / "schedules.yaml"
    with file.open("w") as stream:
        YAML(typ="safe").dump(list(entries), stream)
    return file


def refusal(file: Path) -> str:
    with pytest.raises(ScheduleError) as raised:
        read_schedules(file)
    return str(raised.value)


def test_the_shipped_list_is_good() -> None:
    assert read_schedules()


def test_an_entry_may_name_a_study_of_the_documents_as_it_was_called_once(tmp_path: Path) -> None:
    entry = ScheduledRun(study="seeds/slides-torus", store="results", cron="0 2 * * *")
    assert entry.parameters(tmp_path)["study"] == "documents/slides-torus"


def test_an_entry_is_called_after_its_study_unless_it_has_a_name(tmp_path: Path) -> None:
    found = read_schedules(listed(tmp_path, GOOD, GOOD | {"name": "other"}))
    assert [entry.title for entry in found] == ["smoke", "other"]


def test_one_study_may_be_run_twice_a_day_and_another_needs_a_name_or_a_store_of_its_own(tmp_path: Path) -> None:
    again = GOOD | {"name": "noon", "cron": "0 12 * * *", "wait": 30}
    grown = GOOD | {"name": "grown", "overrides": ["seeds=2", "name=grown"]}
    apart = GOOD | {"name": "apart", "overrides": ["seeds=2"], "store": "elsewhere"}
    found = read_schedules(listed(tmp_path, GOOD, again, grown, apart))
    assert [entry.parameters(tmp_path).get("wait") for entry in found] == [None, 30.0, None, None]


def test_an_entry_says_where_its_workers_compute_or_leaves_it_to_the_flow(tmp_path: Path) -> None:
    entries = [GOOD | {"name": name, "device": name} for name in ("cpu", "cuda", "auto")]
    found = read_schedules(listed(tmp_path, GOOD, *entries))
    assert [entry.parameters(tmp_path).get("device") for entry in found] == [None, "cpu", "cuda", "auto"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"cron": "61 * * * *"}, 'cron: .*Invalid cron string: "61 '),
        ({"cron": 5}, "cron: .*valid string"),
        ({"timezone": "Mars/Olympus"}, 'timezone: .*Invalid timezone: "Mars/Olympus"'),
        ({"store": "ftp://host/store"}, "store: .*expected a folder or s3://bucket/prefix"),
        ({"store": ""}, "store: "),
        ({"store": "s3://bucket"}, "store s3://bucket: expected s3://bucket/prefix"),
        ({"store": "s3://KEY:hunter2@bucket/prefix"}, "found a user name or a password in the address"),
        ({"wait": -1}, "wait: .*greater than or equal to 0"),
        ({"shard_limit": 0}, "shard_limit: .*greater than or equal to 0.05"),
        ({"shard_limit": "soon"}, "shard_limit: .*valid number"),
        ({"device": "tpu"}, "device: found 'tpu': Input should be 'cpu', 'cuda' or 'auto'"),
        ({"overrides": ["seeds=4"]}, "asks for another study 'smoke' of store .*answers than entry 1 .smoke., .*name="),
        ({"overrides": "seeds=2"}, "overrides: "),
        ({"overrides": [2]}, r"overrides\.0: .*valid string"),
        ({"overrides": ["training.stepz=3"]}, "did you mean 'steps'"),
        ({"name": "a/b"}, "name: .*none of the characters"),
        (
            {"when": "now"},
            "when: unknown key .*study, store, cron, after, timezone, overrides, name, wait, shard_limit, device, tags",
        ),
        ({"after": "smoke"}, "expected one of `cron: ...` and `after: NAME"),
        ({"cron": None}, "expected one of `cron: ...` and `after: NAME"),
        ({"tags": "mine"}, "tags: "),
        ({"study": "smok", "name": "misspelt"}, "did you mean 'smoke'"),
        ({"study": "seeds"}, "this file names other studies, where one study is expected"),
    ],
)
def test_what_is_wrong_is_told_with_its_entry(change: dict[str, object], expected: str, tmp_path: Path) -> None:
    entry = GOOD | {"name": "nightly"} | change
    message = refusal(listed(tmp_path, GOOD, entry))
    assert f"entry 2 ({entry['name']}): " in message
    assert "hunter2" not in message
    with pytest.raises(AssertionError, match=expected):
        raise AssertionError(message)


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    message = refusal(listed(tmp_path, {"study": "smoke"}, "smoke", GOOD, GOOD))
    assert "entry 1 (smoke): store: missing" in message
    assert "entry 1 (smoke): expected one of `cron: ...` and `after: " in message
    assert "entry 2: found 'smoke'" in message
    assert "'smoke' names 2 entries" in message


def test_an_entry_may_follow_another_one_that_is_there_and_not_itself(tmp_path: Path) -> None:
    full = {"study": "uniform", "store": "answers", "after": "smoke", "name": "full"}
    found = read_schedules(listed(tmp_path, GOOD, full))
    assert [entry.when for entry in found] == ["0 2 * * * UTC", "after smoke"]
    assert "'full': after: no entry 'smoek' (there are: smoke, full)" in refusal(
        listed(tmp_path, GOOD, full | {"after": "smoek"})
    )
    ring = [full | {"after": "last"}, full | {"name": "last", "after": "full"}]
    assert "'full': after: its chain leads back to 'full', and never begins" in refusal(listed(tmp_path, *ring))


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_deployment_has_the_tags_of_its_study_and_of_its_entry_and_a_form_that_explains_itself(
    tmp_path: Path,
) -> None:
    from prefect.utilities.callables import parameter_schema

    from deployments.serve import deployment_of
    from flows.run_study import run_study

    entry = ScheduledRun(study="smoke", store="s", after="other", overrides=("name=mine",), tags=("team", "mine"))
    made = deployment_of(entry, tmp_path)
    assert made.tags == ["diffatlas", "mine", "team"]
    (trigger,) = made.triggers
    assert trigger.model_dump(mode="json")["match_related"] == {
        "prefect.resource.role": "deployment",
        "prefect.resource.name": "other",
    }
    form = parameter_schema(run_study.fn).properties
    assert [name for name, field in form.items() if not field.get("description")] == []
    assert form["device"]["enum"] == ["cpu", "cuda", "auto"]
    shipped = {file.stem for file in (DEPLOYMENTS / "studies").glob("*.yaml") if file.stem != "documents"}
    assert shipped == set(form["study"]["description"].partition(": ")[2].rstrip(".").replace("\n", " ").split(", "))


def test_what_is_lacking_is_asked_of_the_store(tmp_path: Path) -> None:
    answer(str(tmp_path / "answers"))
    (tmp_path / "tiny.yaml").write_text(json.dumps(SPEC))
    full = ScheduledRun(study="tiny.yaml", store="answers", cron="0 2 * * *")
    grown = full.model_copy(update={"name": "grown", "overrides": ("name=grown", "steps=[1, 3, 5]")})
    found = list(lacking([full, grown], tmp_path))
    assert [(one.entry.title, one.points) for one in found] == [("grown", 8)]
    each = list(lacking([full, grown], tmp_path, [("name=same",), ("name=more", "seeds=3")], ["tiny"]))
    assert [(one.name, one.parameters["overrides"]) for one in each] == [
        ("tiny name=more seeds=3", ["name=more", "seeds=3"])
    ]
    with pytest.raises(ScheduleError, match="would redefine study 'tiny', which tiny asks for every time; add a name"):
        list(lacking([full], tmp_path, [("seeds=3",)]))
    with pytest.raises(ScheduleError, match=r"no entry 'tinny' .there are: tiny, grown"):
        list(lacking([full, grown], tmp_path, names=["tinny"]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "expected a list"),
        ("study: smoke", "expected a list"),
        ("- {study: smoke", "not YAML"),
        ("- {study: smoke, study: torus}", "not YAML"),
        ("- !!python/object:os.system {}", "not YAML"),
    ],
)
def test_what_is_no_list_is_refused(text: str, expected: str, tmp_path: Path) -> None:
    file = tmp_path / "schedules.yaml"
    file.write_text(text)
    assert expected in refusal(file)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert "cannot be read" in refusal(tmp_path / "none.yaml")


def test_paths_do_not_depend_on_where_the_run_is_started(tmp_path: Path) -> None:
    entry = ScheduledRun(study="mine.yaml", store="answers", cron="0 2 * * *", overrides=("seeds=2",))
    assert entry.parameters(tmp_path) == {
        "study": str(tmp_path / "mine.yaml"),
        "store": str(tmp_path / "answers"),
        "overrides": ["seeds=2"],
    }
    limited = entry.model_copy(update={"shard_limit": 0.5, "wait": 3.0}).parameters(tmp_path)
    assert (limited["wait"], limited["shard_limit"]) == (3.0, 0.5)
    elsewhere = ScheduledRun(study="smoke", store="s3://bucket/prefix", cron="0 2 * * *").parameters(tmp_path)
    assert elsewhere == {"study": "smoke", "store": "s3://bucket/prefix", "overrides": []}


# Ray and Prefect leave sockets to the garbage collector when they are imported and used without a
# server.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_file_of_prefect_says_what_the_list_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.client.schemas.schedules import CronSchedule
    from prefect.utilities.templating import apply_values

    from deployments.serve import WORK_POOL, deployment_of

    monkeypatch.setenv("PWD", str(tmp_path))
    written = apply_values(YAML(typ="safe").load((DEPLOYMENTS / "prefect.yaml").read_text())["deployments"], {})
    expected = [deployment_of(entry, tmp_path, WORK_POOL) for entry in read_schedules()]
    deployments: list[dict[str, object]] = []
    for entry, deployment in zip(read_schedules(), expected, strict=True):
        assert deployment.schedules
        assert deployment.concurrency_options
        crons = [given.schedule for given in deployment.schedules if isinstance(given.schedule, CronSchedule)]
        zones = [{"timezone": given.timezone} if entry.timezone else {} for given in crons]
        limit = deployment.concurrency_limit, deployment.concurrency_options.collision_strategy.value
        deployments.append(
            {
                "name": deployment.name,
                "entrypoint": deployment.entrypoint,
                "tags": deployment.tags,
                "parameters": deployment.parameters,
                "schedules": [{"cron": given.cron, **zone} for given, zone in zip(crons, zones, strict=True)],
                "concurrency_limit": dict(zip(("limit", "collision_strategy"), limit, strict=True)),
                "work_pool": {"name": deployment.work_pool_name, "job_variables": deployment.job_variables},
            }
        )
    assert written == deployments


@pytest.mark.parametrize("program", ["serve.py", "deploy.py"])
def test_without_a_server_it_is_said_how_to_start_one(program: str, tmp_path: Path) -> None:
    outcome = started(program, tmp_path, listed(tmp_path, GOOD))
    assert outcome.returncode == 3
    assert "prefect server start" in outcome.stderr
    assert "PREFECT_API_URL" in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_a_wrong_list_is_told_before_a_server_is_looked_for(tmp_path: Path) -> None:
    outcome = started("serve.py", tmp_path, listed(tmp_path, GOOD | {"cron": "never"}))
    assert outcome.returncode == 2
    assert "entry 1 (smoke): cron: " in outcome.stderr


def started(program: str, home: Path, file: Path) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return subprocess.run(
        [sys.executable, str(DEPLOYMENTS / program), "--schedules", str(file)],
        env=environment | {"PREFECT_HOME": str(home)},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
