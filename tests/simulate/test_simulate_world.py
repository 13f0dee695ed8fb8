"""The simulator: times are what the library's model says, and nothing is lost on the way."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsmfs.catalog.queues import RecallClass
from hsmfs.engine.schedule import Rules
from hsmfs.errors import TraceError
from hsmfs.library.simulated.timing import Timing
from hsmfs.simulate import generate, trace
from hsmfs.simulate.bound import makespan_bound
from hsmfs.simulate.model import Model
from hsmfs.simulate.policies import POLICIES
from hsmfs.simulate.report import quantile, run
from hsmfs.simulate.trace import Place, Request, Trace

NOW, STANDARD, BULK, IDLE = RecallClass
TIMING = Timing(exchange_s=30, load_s=20, seek_s=0, read_bytes_per_s=2048, write_bytes_per_s=1024)
ONE, MANY = Model(1, TIMING), Model(4, TIMING)
WHOLE = Model(2, TIMING, 2, True)
RULES = Rules(quiet_limit=0.0)


def trace_of(*requests, discs=9):
    """Requests as (at, class, bytes, disc or discs, sector); three discs a magazine."""
    made = []
    for at, urgency, size, where, *sector in requests:
        places = where if isinstance(where, tuple) else (where,)
        at_sector = sector[0] if sector else 0
        made.append(Request(at, urgency, size, tuple(Place(d, at_sector) for d in places)))
    return Trace(made, [f"d{n}" for n in range(discs)], [n // 3 for n in range(discs)])


def done(made, model=ONE, policy="hsmfs", rules=RULES):
    return run(made, model, policy, rules)[1].done


def test_one_request_is_a_move_a_load_and_a_read():
    assert done(trace_of((5, NOW, 20480, 1))) == [5 + 30 + 20 + 10]


def test_what_is_loaded_is_not_fetched_again_and_another_disc_costs_two_moves():
    made = trace_of((0, NOW, 2048, 1), (100, NOW, 2048, 1, 7), (200, NOW, 2048, 2))
    assert done(made) == [51, 101, 200 + 60 + 20 + 1]


def test_bulk_gives_way_after_its_chunk_and_goes_on_where_it_was():
    chunk = 2048.0  # seconds for 4 MiB
    made = trace_of((0, BULK, 3 << 22, 1), (100, NOW, 2048, 2))
    ends = done(made)
    assert ends[1] == 50 + chunk + 60 + 20 + 1
    assert ends[0] == ends[1] + 60 + 20 + 2 * chunk


def test_an_urgent_request_of_the_disc_that_is_read_goes_first():
    made = trace_of((0, BULK, 3 << 22, 1), (100, NOW, 2048, 1, 9000))
    assert done(made) == [50 + 3 * 2048 + 1, 50 + 2048 + 1]


def test_a_magazine_brings_all_its_discs():
    made = trace_of(*[(0, BULK, 2048, disc) for disc in (0, 1, 2)])
    report, outcome = run(made, WHOLE, "hsmfs", RULES)
    assert outcome.done == [51, 51, 72]
    assert report.fetches == 1


def test_no_second_arm_fetches_a_magazine_that_is_on_its_way():
    model = Model(2, TIMING, 2, True, arms=2)
    made = trace_of((0, NOW, 2048, 0), (1, NOW, 2048, 1), (2, NOW, 2048, 3))
    report, outcome = run(made, model, "hsmfs", RULES)
    assert (report.fetches, outcome.done) == (2, [51, 51, 53])


def test_the_copy_that_is_loaded_is_taken():
    made = trace_of((0, NOW, 2048, 1), (100, NOW, 2048, (5, 1), 7))
    assert done(made) == [51, 101]


def test_a_burn_takes_its_drive_and_is_read_back():
    made = trace_of((10, BULK, 20480, 3))
    made.requests[0] = made.requests[0]._replace(burn=True)
    assert done(made) == [10 + 30 + 20 + 20 + 10]


def test_quantile():
    values = [float(n) for n in range(1, 101)]
    assert [quantile(values, share) for share in (0.5, 0.95, 0.99)] == [50, 95, 99]
    assert quantile([3.0], 0.95) == 3


requests = st.lists(
    st.tuples(
        st.floats(0, 5000), st.sampled_from([NOW, STANDARD, BULK]), st.integers(1, 1 << 24),
        st.integers(0, 8), st.integers(0, 1000),
    ),
    min_size=1, max_size=40,
)  # fmt: skip


@settings(max_examples=60)
@given(requests, st.sampled_from([ONE, MANY, WHOLE]), st.sampled_from(list(POLICIES)))
def test_all_is_served_and_never_faster_than_the_bound(asked, model, policy):
    made = trace_of(*sorted(asked))
    report, outcome = run(made, model, policy, RULES)
    for request, end in zip(made.requests, outcome.done, strict=True):
        assert end >= request.at + request.size / 2048
    assert report.makespan >= makespan_bound(made, model) - 1e-6
    assert 0 < report.robot_use <= 1
    assert 0 < report.drive_use <= 1


def test_hsmfs_beats_fifo_on_scattered_work():
    archive = generate.Archive(magazines=3, discs_per_magazine=3, disc_bytes=10**9, study=10**6)
    made = generate.scattered(archive, 1, size=10**9)
    slow, fast = (run(made, MANY, policy, RULES)[0] for policy in ("fifo", "hsmfs"))
    assert fast.fetches == 9
    assert slow.fetches > 50


def test_same_seed_same_trace_and_a_trace_survives_its_file(tmp_path):
    archive = generate.Archive(magazines=3, discs_per_magazine=3, disc_bytes=10**9)
    readers = generate.priors(archive, 3, hours=5, exams_a_day=2000)
    made = readers.merged(generate.storm(archive, 1, requests=5, seconds=9, allowed=2))
    made = made.merged(generate.burns(archive, 1, hours=1, discs=2))
    assert readers.requests == generate.priors(archive, 3, hours=5, exams_a_day=2000).requests
    assert made.only(NOW).requests[0].at >= 0
    file = tmp_path / "t.jsonl"
    file.write_text("".join(trace.dump(made)))
    again = trace.load(file)
    assert list(trace.dump(again)) == list(trace.dump(made))


def test_priors_are_as_the_paper_says():
    """Of 1,000 exams 59.7 % have priors, 7.6 each, 61 % relevant, 8.6 % of those over 24 months."""
    archive = generate.Archive()
    asked = generate.priors(archive, 1, hours=24 * 40).requests
    assert len(asked) / 40 == pytest.approx(1000 * 0.597 * 7.6 * 0.61 * 0.086, rel=0.1)
    hours = [int((7 * 3600 + r.at) % 86400 // 3600) for r in asked]
    assert hours.count(10) > 5 * hours.count(2)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2"),
        ('{"t": 1, "class": "bulk", "bytes": 5}', "no key 'copies'"),
        ('{"t": 1, "class": "soon", "bytes": 5, "copies": [{"disc": "a"}]}', "no key 'soon'"),
        ('{"t": 1, "class": "bulk", "bytes": 0, "copies": [{"disc": "a"}]}', "bytes above 0"),
    ],
)
def test_a_bad_trace_is_named_with_its_line(line, message):
    with pytest.raises(TraceError, match=message):
        trace.parse(['{"hsmfs_trace": 1}', line])
    with pytest.raises(TraceError, match="version 7"):
        trace.parse(['{"hsmfs_trace": 7}'])


def test_traces_about_other_discs_do_not_merge():
    with pytest.raises(TraceError, match="same discs"):
        trace_of((0, NOW, 1, 1)).merged(trace_of((0, NOW, 1, 1), discs=2))


def test_whole_magazines_need_a_trace_that_names_them():
    line = '{"t": 0, "class": "bulk", "bytes": 2048, "copies": [{"disc": "a"}]}'
    made = trace.parse(['{"hsmfs_trace": 1}', line])
    assert "magazine" not in "".join(trace.dump(made))
    assert done(made) == [51]
    with pytest.raises(TraceError, match="in which magazine disc a lies"):
        done(made, WHOLE)
