"""A batch's requests in their files, what they share, who may write where, and how lost workers are made up for."""

from __future__ import annotations

import json
import random
from collections import defaultdict, deque

import pyarrow as pa
import pytest
from pyarrow import parquet

from cache import CacheError, LayeredStore, MemoryStore, PlanCache, SqliteStore
from cloud_pruner.asked import Asked
from cloud_pruner.batch import BatchDefaults, BatchSettings, LocalCrew, run_batch
from cloud_pruner.batch.output import OutputFolder
from cloud_pruner.batch.requests_file import BadRow, read_requests
from cloud_pruner.batch.scheduling import TRIES, Done, Lost, Ready, Unfit, answers
from cloud_pruner.batch.work import Answer, Task, task_for
from cloud_pruner.cli.batch_progress import ProgressLines
from cloud_pruner.errors import PrunerError, RequestError
from cloud_pruner.personalize import Personalizer
from cloud_pruner.requests import PruneRequest
from tests.support.disks import leave, small_disk

EMPIRICAL = BatchDefaults(guarantee="empirical")
ONE_AND_TWO = {"device": "d", "usage": {"one": 1.0, "two": 1.0}}


def write_lines(path, rows):
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def write_table(path, rows, usage=None):
    columns = {"usage": usage} if usage is not None else {}
    names = sorted({name for row in rows for name in row})
    arrays = [pa.array([row.get(name) for row in rows], columns.get(name)) for name in names]
    parquet.write_table(pa.table(arrays, names=names), path)
    return path


def no_workers():
    raise AssertionError("nothing should have been left to search")


class TestReading:
    ROWS = (
        {"device": "d-1", "usage": {"one": 0.7, "two": 0.3}},
        {"device": "d-2", "usage": {"two": 1.0}, "variant": "W", "epsilon": 0.05},
        {"device": "d-1", "usage": {"one": 2.0, "two": 2.0}, "guarantee": "empirical", "objective": "macs"},
    )

    def test_lines_and_tables_say_the_same(self, digits_profile, tmp_path):
        as_map = [{**row, "usage": list(row["usage"].items())} for row in self.ROWS]
        as_text = [{**row, "usage": json.dumps(row["usage"])} for row in self.ROWS]
        files = (
            write_lines(tmp_path / "lines.jsonl", self.ROWS),
            write_table(tmp_path / "struct.parquet", self.ROWS),
            write_table(tmp_path / "map.parquet", as_map, pa.map_(pa.string(), pa.float64())),
            write_table(tmp_path / "text.parquet", as_text),
        )
        read = [list(read_requests(file, digits_profile, BatchDefaults())) for file in files]
        told = [[(row.number, row.device, row.asked.key, row.asked.weights) for row in rows] for rows in read]
        assert told[0] == told[1] == told[2] == told[3]
        assert [row[:2] for row in told[0]] == [(1, "d-1"), (2, "d-2"), (3, "d-1")]
        assert read[0][0].asked.request == PruneRequest({"one": 0.7, "two": 0.3})
        assert read[0][1].asked.request.epsilon == 0.05

    @pytest.mark.parametrize(
        ("line", "wrong"),
        [
            ("{", "is not valid JSON"),
            ("[]", "is a JSON list, not an object"),
            ("[" * 100_000, "is not valid JSON"),
            ('{"device": "d", "usage": {"one": 1, "one": 2}}', "'one' is named twice"),
            ({"usage": {"one": 1}}, "field 'device' is missing"),
            ({"device": "", "usage": {"one": 1}}, "expected 1 to 256 printable letters"),
            ({"device": 7, "usage": {"one": 1}}, "field 'device' is a int, expected str"),
            ({"device": "d"}, "field 'usage' is missing"),
            ({"device": "d", "usage": {}}, "no classes: name at least one"),
            ({"device": "d", "usage": {"eleven": 1}}, "unknown class 'eleven'"),
            ({"device": "d", "usage": {"one": -1}}, "the weight of class 'one' is -1"),
            ({"device": "d", "usage": {"one": 1e308, "two": 1e308}}, "the weights sum to more"),
            ('{"device": "d", "usage": {"one": NaN}}', "expected a finite number"),
            (f'{{"device": "d", "usage": {{"one": 1{"0" * 400}}}}}', "too large"),
            ({**ONE_AND_TWO, "epsilom": 0.1}, "field 'epsilom' is unknown: a request has device, usage, variant"),
            ({**ONE_AND_TWO, "epsilon": 3}, "epsilon is 3.0: it is a share of accuracy"),
            ({**ONE_AND_TWO, "variant": "Z"}, "variant 'Z' is unknown"),
            (f'{{"device": "d", "usage": "{"x" * (1 << 20)}"}}', "line is longer than"),
            (b"\xff\xfe".decode("latin-1"), "is not valid JSON"),
        ],
    )
    def test_a_bad_line_is_named_and_the_next_ones_are_read(self, digits_profile, tmp_path, line, wrong):
        path = write_lines(tmp_path / "r.jsonl", [ONE_AND_TWO, "", line, ONE_AND_TWO])
        before, bad, after = read_requests(path, digits_profile, BatchDefaults())
        assert isinstance(bad, BadRow)
        assert bad.error.startswith("r.jsonl:3: ")
        assert wrong in bad.error
        assert len(bad.error.splitlines()) == 1
        assert len(bad.content) <= 300
        assert (before.number, after.number) == (1, 4)

    def test_a_table_without_the_columns_that_it_takes(self, digits_profile, tmp_path):
        for name, rows, wrong in (
            ("few", [{"device": "d"}], "few.parquet: has no column 'usage'"),
            ("many", [{**ONE_AND_TWO, "region": "x"}], "many.parquet: column 'region' is unknown"),
        ):
            with pytest.raises(RequestError, match=wrong):
                list(read_requests(write_table(tmp_path / f"{name}.parquet", rows), digits_profile, BatchDefaults()))

    def test_a_file_that_is_none(self, digits_profile, tmp_path):
        whole = write_table(tmp_path / "whole.parquet", [ONE_AND_TWO] * 50).read_bytes()
        for content in (b"", b"no table at all", whole[:-20], whole[:40] + b"\xff" * 40 + whole[80:]):
            path = tmp_path / "damaged.parquet"
            path.write_bytes(content)
            with pytest.raises(RequestError, match="damaged.parquet: cannot be read as a Parquet table") as caught:
                list(read_requests(path, digits_profile, BatchDefaults()))
            assert len(str(caught.value).splitlines()) == 1
        with pytest.raises(RequestError, match="neither .jsonl nor .parquet"):
            list(read_requests(tmp_path / "r.csv", digits_profile, BatchDefaults()))
        with pytest.raises(FileNotFoundError):
            list(read_requests(tmp_path / "nothing.jsonl", digits_profile, BatchDefaults()))

    def test_defaults_that_make_no_sense(self):
        with pytest.raises(RequestError, match="epsilon is 7"):
            BatchDefaults(epsilon=7)


class TestSharing:
    def test_requests_under_one_key_are_one_task_whichever_comes_first(self, digits_profile):
        def task(usage, **wishes):
            return task_for(Asked.of(digits_profile, PruneRequest(usage, **wishes)))

        assert task({"one": 3, "two": 1}) == task({"two": 9, "one": 1})
        assert task({"one": 3, "two": 1}).request.usage == {"one": 1.0, "two": 1.0}
        heavy, light = ({"one": 3, "two": 1, "six": weight} for weight in (0.2, 0.21))
        assert task(heavy, variant="W").key == task(light, variant="w").key
        assert task(heavy, variant="W").key != task({"one": 1, "two": 1, "six": 1}, variant="W").key
        assert task({"one": 1}, delta=0.2).key != task({"one": 1}).key

    def test_a_task_has_its_key(self, digits_profile):
        rng = random.Random(5)
        for _ in range(300):
            usage = {name: rng.random() ** 3 + 1e-3 for name in rng.sample(digits_profile.classes, rng.randint(1, 10))}
            asked = Asked.of(digits_profile, PruneRequest(usage, variant=rng.choice("WLB")))
            assert Asked.of(digits_profile, task_for(asked).request).key == asked.key


@pytest.fixture(scope="module")
def cache(digits_profile):
    """Knows all that `TestFolders.ROWS` ask for."""
    with PlanCache(LayeredStore(MemoryStore(1 << 24))) as plans:
        personalizer = Personalizer(digits_profile, plans, near_hits=False)
        for usage in ({"one": 1, "two": 1}, {"six": 1, "two": 1}):
            personalizer.personalize(PruneRequest(usage, guarantee="empirical"))
        yield plans


class TestFolders:
    @pytest.fixture
    def run(self, digits_profile, cache, tmp_path):
        def batch(rows, folder="out", **settings):
            path = write_lines(tmp_path / "r.jsonl", rows)
            settings = BatchSettings("none", **{"defaults": EMPIRICAL, **settings})
            return run_batch(digits_profile, path, tmp_path / folder, no_workers, settings, cache=cache)

        return batch

    ROWS = (
        {"device": "a", "usage": {"one": 0.7, "two": 0.3}},
        {"device": "b", "usage": {"six": 0.5, "two": 0.5}},
        {"device": "a", "usage": {"one": 0.7, "two": 0.3}},
        {"device": "a", "usage": {"one": 0.2, "two": 0.8}},
    )

    def test_what_the_cache_has_is_not_searched(self, run, tmp_path):
        summary = run(self.ROWS)
        assert (summary.requests, summary.keys, summary.cached, summary.searched) == (4, 2, 2, 0)
        assert summary.shared == 0.5
        rows = parquet.read_table(tmp_path / "out" / "results.parquet").to_pylist()
        assert [(row["row"], row["device"]) for row in rows] == [(1, "a"), (2, "b"), (3, "a"), (4, "a")]
        assert len({row["digest"] for row in rows}) == 2
        assert dict(rows[3]["usage"]) == {"one": 0.2, "two": 0.8}
        assert all(0 < row["relative_size"] < 1 and row["margin"] >= 0 and row["error"] is None for row in rows)
        told = json.loads((tmp_path / "out" / "summary.json").read_text())
        assert told.pop("of").keys() == {"profile", "requests", "defaults", "base"}
        assert told == summary.to_fields()

    def test_the_digest_is_of_the_answers_not_of_their_order(self, run):
        digest = run(self.ROWS).digest
        assert run(self.ROWS[::-1], "turned").digest == digest
        assert run(self.ROWS[:3], "fewer").digest != digest
        assert run([*self.ROWS[:3], {**self.ROWS[3], "device": "c"}], "other").digest != digest

    def test_rows_that_are_no_requests_end_it_before_any_work(self, run, tmp_path):
        rows = [self.ROWS[0], "{", {**ONE_AND_TWO, "epsilom": 1}]
        with pytest.raises(RequestError, match=r"2 of 3 rows are no requests, the first: r.jsonl:2: .*--keep-going"):
            run(rows)
        assert not (tmp_path / "out" / "batch.json").exists()
        rejected = [json.loads(line) for line in (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()]
        assert [row["number"] for row in rejected] == [2, 3]
        assert "'epsilom' is unknown" in rejected[1]["error"]
        assert run([self.ROWS[0]]).rejected == 0  # they were mended
        assert not (tmp_path / "out" / "rejected.jsonl").exists()

    def test_or_are_passed_over(self, run):
        summary = run([*self.ROWS, "{"], keep_going=True)
        assert (summary.requests, summary.rejected, summary.failed) == (4, 1, 0)

    def test_a_folder_goes_on_with_what_it_was_begun_for_alone(self, run):
        run(self.ROWS)
        for rows, settings, what in (
            (self.ROWS[:2], {}, "for other requests"),
            (self.ROWS, {"defaults": BatchDefaults(guarantee="empirical", epsilon=0.05)}, "with other defaults"),
        ):
            with pytest.raises(PrunerError, match=f"out: was begun {what}: .*--restart"):
                run(rows, **settings)
        assert run(self.ROWS).resumed == 2
        anew = run(self.ROWS[:2], restart=True)
        assert (anew.requests, anew.resumed, anew.cached) == (2, 0, 2)

    def test_requests_that_change_meanwhile(self, digits_profile, cache, tmp_path):
        path = write_lines(tmp_path / "r.jsonl", self.ROWS)
        for changed in ([*self.ROWS, {"device": "c", "usage": {"nine": 1}}], self.ROWS[1:]):

            def change(what, done, total, changed=changed):
                if what == "reading":
                    write_lines(path, changed)

            write_lines(path, self.ROWS)
            with pytest.raises(RequestError, match="r.jsonl: changed while the batch ran"):
                run_batch(
                    digits_profile,
                    path,
                    tmp_path / "out",
                    no_workers,
                    BatchSettings("none", EMPIRICAL),
                    cache=cache,
                    progress=change,
                )
            assert not (tmp_path / "out" / "results.parquet").exists()

    def test_a_full_disk_ends_it_and_room_lets_it_go_on(self, run, tmp_path):
        digest = run(self.ROWS).digest
        with small_disk(tmp_path / "disk", "512k") as disk:
            outcomes = []
            for pages in range(0, 100, 6):
                leave(disk, pages)
                try:
                    outcomes.append(run(self.ROWS, "disk/out").digest)
                except (CacheError, OSError) as error:
                    outcomes.append(error)
            errors = [one for one in outcomes if isinstance(one, Exception)]
            assert outcomes[0] in errors
            assert outcomes[-1] == digest
            assert all(one == digest for one in outcomes if one not in errors)
            assert all(str(disk) in str(error) for error in errors), errors
            outcomes.append(run(self.ROWS, "disk/out"))
            assert (outcomes[-1].resumed, outcomes[-1].digest) == (2, digest)

    def test_one_at_a_time(self, run, tmp_path):
        with (
            OutputFolder.opened(tmp_path / "out"),
            pytest.raises(PrunerError, match="another 'capnn batch' is at work on it"),
        ):
            run(self.ROWS)
        assert run(self.ROWS).requests == 4

    def test_a_folder_of_something_else_is_left_alone(self, run, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "thesis.tex").write_text("years of work")
        with pytest.raises(PrunerError, match="holds 'thesis.tex', and is no batch's"):
            run(self.ROWS, restart=True)
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]

    def test_the_cache_gets_what_was_searched_without_it(self, digits_profile, tmp_path):
        path = write_lines(tmp_path / "r.jsonl", [{"device": "d", "usage": {"four": 1, "five": 1}}])
        settings = BatchSettings("local", EMPIRICAL)
        run_batch(digits_profile, path, tmp_path / "out", lambda: LocalCrew(digits_profile.folder, 1), settings)
        stores = LayeredStore(MemoryStore(1 << 24)), LayeredStore(SqliteStore(tmp_path / "out" / "plans.sqlite"))
        with PlanCache(stores[0]) as given, PlanCache(stores[1]) as left:
            run_batch(digits_profile, path, tmp_path / "out", no_workers, settings, cache=given)
            for plans in (given, left):  # both answer the device, as a service would
                asked = PruneRequest({"five": 0.9, "four": 0.1}, guarantee="empirical")
                answer = Personalizer(digits_profile, plans).personalize(asked)
                assert answer.manifest.cache_tier == "exact"
                (row,) = parquet.read_table(tmp_path / "out" / "results.parquet").to_pylist()
                assert (row["digest"], row["plan"]) == (answer.manifest.digest, answer.manifest.plan.digest)


class ScriptedCrew:
    """Workers, 1, 2, ..., who are lost `at` a task each, or these of them `before` they are ready; or are `unfit`."""

    def __init__(self, size, depth, at=(), before=(), *, unfit=False):
        self.size, self.depth = size, depth
        self._at, self._before, self._unfit = list(at), before, unfit
        self._happened, self._given = deque(), defaultdict(deque)
        self.hired, self.most = 0, 0

    def hire(self):
        self.hired += 1
        lost = Lost(self.hired, "killed by SIGKILL")
        event = Unfit(self.hired, "too old") if self._unfit else Ready(self.hired)
        self._happened.append(lost if self.hired in self._before else event)
        return self.hired

    def give(self, worker, task):
        given = self._given[worker]
        given.append(task)
        self.most = max(self.most, len(given))
        if len(given) == 1:
            self._begin(worker)

    def wait(self):
        event = self._happened.popleft()
        if isinstance(event, Done):
            self._given[event.worker].popleft()
            if self._given[event.worker]:
                self._begin(event.worker)
        return [event]

    def _begin(self, worker):
        key = self._given[worker][0].key
        if key in self._at:
            self._at.remove(key)
            self._happened.append(Lost(worker, "killed by SIGKILL"))
        else:
            self._happened.append(Done(worker, Answer(key.encode())))


TASKS = [Task(key, PruneRequest({})) for key in "abcdef"]


class TestLostWorkers:
    @pytest.mark.parametrize(("size", "depth"), [(1, 1), (1, 2), (2, 1), (2, 2), (20, 2)])
    @pytest.mark.parametrize("at", ["", "a", "aab", "bbcc", "abcdef"])
    def test_what_they_were_at_is_done_by_others(self, size, depth, at):
        crew = ScriptedCrew(size, depth, at)
        found = {task.key: answer.value for task, answer in answers(TASKS, crew)}
        assert found == {task.key: task.key.encode() for task in TASKS}
        assert crew.most <= depth
        assert crew.hired <= min(size, len(TASKS)) + len(at)

    @pytest.mark.parametrize("depth", [1, 2])
    def test_what_loses_every_worker_is_given_up_and_nothing_else(self, depth):
        crew = ScriptedCrew(2, depth, "b" * TRIES)
        found = {task.key: answer for task, answer in answers(TASKS, crew)}
        assert found.keys() == set("abcdef")
        assert [key for key, answer in found.items() if answer.value is None] == ["b"]
        assert found["b"].error.startswith("workers end at this request, 3 of 3 times (killed by SIGKILL)")

    def test_some_who_are_lost_at_the_start_are_replaced_but_not_for_ever(self):
        assert len(list(answers(TASKS, ScriptedCrew(1, 1, before=(1, 2))))) == len(TASKS)
        assert len(list(answers(TASKS, ScriptedCrew(1, 1, "ab", before=(1, 3, 5))))) == len(TASKS)
        with pytest.raises(PrunerError, match="workers end before they can work"):
            list(answers(TASKS, ScriptedCrew(1, 1, before=(1, 2, 3))))

    def test_one_who_cannot_work_ends_it(self):
        with pytest.raises(PrunerError, match="too old"):
            list(answers(TASKS, ScriptedCrew(2, 1, unfit=True)))

    def test_without_tasks_nobody_is_hired(self):
        crew = ScriptedCrew(2, 1)
        assert list(answers([], crew)) == []
        assert crew.hired == 0


def test_progress_without_a_terminal_is_a_line_now_and_then():
    lines, now = [], 0.0
    show = ProgressLines(lines.append, lambda: now)
    for second in range(31):
        now = float(second)
        show("searching", max(second - 4, 0) * 2, 100)
    assert lines == [
        "capnn batch: searching: 12 of 100, 2/s, 44 s left",
        "capnn batch: searching: 32 of 100, 2/s, 34 s left",
        "capnn batch: searching: 52 of 100, 2/s, 24 s left",
    ]
