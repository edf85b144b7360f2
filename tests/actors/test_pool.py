"""Pools of actors on a real local Ray: every unit resolves exactly once, whatever dies."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import ray

from pmpo_ray.actors.autoscaling import Bounds
from pmpo_ray.actors.clients import start_rewriter_pool, start_scorer_pool
from pmpo_ray.actors.health import ReplicaState
from pmpo_ray.actors.launcher import RayLauncher, ReplicaActor
from pmpo_ray.actors.pool import Pool
from pmpo_ray.actors.pool_spec import PoolSpec
from pmpo_ray.actors.resources import ReplicaPlan, actor_options
from pmpo_ray.actors.stats import PoolStats
from pmpo_ray.config.engines import RewriterConfig, ScorerConfig
from pmpo_ray.config.run import RayConfig
from pmpo_ray.engines.simulated.engine import SimulatedGenerator, SimulatedScorer
from pmpo_ray.engines.threaded import ThreadedGenerator
from pmpo_ray.errors import DataError, EngineError, ModelError, PmpoError, PromptTooLongError, ResourceError
from pmpo_ray.types import EngineInfo, Example, GenerateRequest, GenerateResult, ScoreRequest

pytestmark = pytest.mark.slow

INFO = SimulatedScorer("test").info()
EXAMPLES = tuple(
    Example(f"e{number}", f"Is {number} a prime?", "yes", ("no", "not at all")) for number in range(50)
)
SETTINGS = RayConfig()


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    ray.init(
        address="local",
        num_cpus=4,
        num_gpus=4,
        include_dashboard=False,
        log_to_driver=False,
        _system_config={"prestart_worker_first_driver": False},
    )
    yield
    ray.shutdown()


def replicas(count: int) -> ReplicaPlan:
    return ReplicaPlan(count, num_cpus=0.5, num_gpus=0, memory_bytes=None, threads=1, device="cpu")


def scorer_config(chunk_examples: int = 10) -> ScorerConfig:
    return ScorerConfig(engine="simulated", chunk_examples=chunk_examples)


class Worker:
    """An actor whose methods do what their names say. The first one started in `folder` is the lemon."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lemon = False

    async def start(self) -> EngineInfo:
        try:
            (self._folder / "first").touch(exist_ok=False)
            self._lemon = True
        except FileExistsError:
            self._lemon = False
        return INFO

    async def ping(self) -> str:
        return f"here:{os.getpid()}"

    async def echo(self, value: int, seconds: float = 0.0) -> int:
        await asyncio.sleep(seconds)
        return value

    async def log(self, value: int) -> int:
        with (self._folder / "log").open("a") as log:
            log.write(f"{value}\n")
        await asyncio.sleep(0.05)
        return value

    async def echo_unless_lemon(self, value: int) -> int:
        if self._lemon:
            raise RuntimeError("the engine is broken\nsecond line")
        await asyncio.sleep(0.05)
        return value

    async def refuse(self, error: PmpoError) -> None:
        raise error

    async def die(self) -> None:
        os._exit(1)

    async def break_down(self) -> None:
        raise RuntimeError("always broken\nsecond line")


class WrongModel(Worker):
    async def start(self) -> EngineInfo:
        raise ModelError("model 'x' is not there; name another one")


class DiesAtStart(Worker):
    async def start(self) -> EngineInfo:
        os._exit(1)


class NeverStarts(Worker):
    async def start(self) -> EngineInfo:
        await asyncio.sleep(600)
        return INFO


@asynccontextmanager
async def pool_of(
    actor: type[ReplicaActor],
    folder: Path,
    count: int = 2,
    *,
    minimum: int | None = None,
    slots: int = 1,
    num_cpus: float = 0.1,
    start_timeout: float = 60.0,
    outage_timeout: float = 60.0,
    idle_seconds: float = 60.0,
    grace: float = 60.0,
) -> AsyncIterator[Pool]:
    plan = ReplicaPlan(count, num_cpus, num_gpus=0, memory_bytes=None, threads=1, device="cpu")
    spec = PoolSpec(
        "scorer",
        RayLauncher(actor, (folder,), plan),
        Bounds(count if minimum is None else minimum, count, idle_seconds),
        slots,
        start_timeout=start_timeout,
        outage_timeout=outage_timeout,
        probe_timeout=5.0,
        grace=grace,
        relaunch_delay=0.05,
    )
    pool = Pool(spec)
    try:
        yield pool
    finally:
        await pool.close()


async def until(stats: Callable[[], PoolStats], reached: Callable[[PoolStats], bool]) -> None:
    """Wait until the pool has reached a state, at most a minute."""
    async with asyncio.timeout(60):
        while not reached(stats()):  # noqa: ASYNC110 - a state that is polled, as a display would
            await asyncio.sleep(0.02)


def all_ready(stats: PoolStats) -> bool:
    return all(replica.state is ReplicaState.READY for replica in stats.replicas)


def kill(where: str) -> None:
    os.kill(int(where.rpartition(":")[2]), signal.SIGKILL)


async def test_scores_equal_those_of_the_engine_itself_in_order() -> None:
    pool = await start_scorer_pool(scorer_config(chunk_examples=7), "m", replicas(2), SETTINGS)
    direct = SimulatedScorer("m").score(ScoreRequest("Think.", EXAMPLES, EXAMPLES[:2])).scores
    assert pool.info == SimulatedScorer("m").info()
    assert await pool.score(ScoreRequest("Think.", EXAMPLES, EXAMPLES[:2])) == direct
    assert await pool.score(ScoreRequest("Think.", ())) == ()
    assert pool.stats().done == 8
    await pool.close()


async def test_many_tasks_share_a_pool() -> None:
    pool = await start_scorer_pool(scorer_config(), "m", replicas(2), SETTINGS)
    instructions = [f"Instruction {number}." for number in range(20)]
    results = await asyncio.gather(
        *(pool.score(ScoreRequest(instruction, EXAMPLES)) for instruction in instructions)
    )
    engine = SimulatedScorer("m")
    for instruction, scores in zip(instructions, results, strict=True):
        assert scores == engine.score(ScoreRequest(instruction, EXAMPLES)).scores
    await pool.close()


async def test_a_scorer_killed_at_work_is_replaced_and_every_unit_resolves_once() -> None:
    model = "simulated:tokens_per_s=4000"
    pool = await start_scorer_pool(scorer_config(), model, replicas(2), SETTINGS)
    await until(pool.stats, all_ready)
    instructions = [f"Instruction {number}." for number in range(8)]
    work = asyncio.gather(*(pool.score(ScoreRequest(instruction, EXAMPLES)) for instruction in instructions))
    await until(pool.stats, lambda stats: stats.done >= 5 and stats.replicas[0].in_flight > 0)
    victim = pool.stats().replicas[0]
    kill(victim.where)
    results = await work
    for instruction, scores in zip(instructions, results, strict=True):
        direct = SimulatedScorer(model).score(ScoreRequest(instruction, EXAMPLES[:5])).scores
        assert scores[:5] == direct
        assert len(scores) == len(EXAMPLES)
    stats = pool.stats()
    assert (stats.queued, stats.in_flight, stats.done) == (0, 0, 8 * 5)
    assert stats.retries >= 1
    assert stats.lost == 1
    assert len(stats.replicas) == 2
    assert victim.id not in {replica.id for replica in stats.replicas}
    await pool.close()


async def test_a_scorers_error_arrives_as_it_was_raised_and_cancels_its_siblings() -> None:
    pool = await start_scorer_pool(scorer_config(chunk_examples=1), "m", replicas(1), SETTINGS)
    # The longest chunk goes first; those behind it are not sent any more.
    examples = (Example("huge", "a " * 800_000, "b"), *EXAMPLES)
    with pytest.raises(EngineError) as from_pool:
        await pool.score(ScoreRequest("Think.", examples))
    with pytest.raises(EngineError) as direct:
        SimulatedScorer("m").score(ScoreRequest("Think.", examples[:1]))
    assert type(from_pool.value) is type(direct.value) is PromptTooLongError
    assert str(from_pool.value) == str(direct.value)
    await until(pool.stats, lambda stats: stats.queued == 0 and stats.in_flight == 0)
    stats = pool.stats()
    assert stats.done < len(examples)
    assert (stats.retries, stats.replicas[0].state) == (0, ReplicaState.READY)
    await pool.close()


async def test_rewrites_equal_those_of_the_engine_itself() -> None:
    config = RewriterConfig(engine="simulated", batch=4)
    pool = await start_rewriter_pool(config, "m", replicas(2), SETTINGS)
    requests = [GenerateRequest(f"Improve <prompt>text {number}.</prompt>", n=3) for number in range(20)]
    results = await asyncio.gather(*(pool.generate(request) for request in requests))
    assert results == SimulatedGenerator("m").generate(requests)
    await pool.close()


async def test_a_wrong_model_fails_the_start_with_the_error_of_the_engine() -> None:
    with pytest.raises(ModelError, match="tokens_per_s=NUMBER") as failed:
        await start_scorer_pool(scorer_config(), "simulated:speed=3", replicas(2), SETTINGS)
    assert "\n" not in str(failed.value)


async def test_a_wrong_model_fails_waiting_and_later_units_too(tmp_path: Path) -> None:
    async with pool_of(WrongModel, tmp_path) as pool:
        waiting = asyncio.ensure_future(pool.submit(Worker.echo, 1, weight=1))
        await asyncio.sleep(0)
        for failing in (pool.start(), waiting, pool.submit(Worker.echo, 1, weight=1)):
            with pytest.raises(ModelError, match=r"model 'x' is not there"):
                await failing


async def test_replicas_that_cannot_live_fail_the_pool_with_what_was_missing(tmp_path: Path) -> None:
    async with pool_of(DiesAtStart, tmp_path, count=1) as pool:
        with pytest.raises(ResourceError, match=r"no replica could be started, 5 tries failed") as failed:
            await pool.start()
        assert "\n" not in str(failed.value)
        assert pool.stats().lost == 5


async def test_a_replica_without_room_in_the_cluster_is_an_error_after_the_timeout(tmp_path: Path) -> None:
    async with pool_of(Worker, tmp_path, count=1, num_cpus=64, outage_timeout=0.5) as pool:
        message = (
            r"no working replica for 0.5 s, the cluster had no room for one: each needs 64 CPUs, .* 4 CPUs"
        )
        with pytest.raises(ResourceError, match=message):
            await pool.start()


async def test_a_replica_that_loads_too_long_is_an_error_after_the_timeout(tmp_path: Path) -> None:
    async with pool_of(NeverStarts, tmp_path, count=1, start_timeout=0.5) as pool:
        with pytest.raises(ResourceError, match=r"still loading after 0.5 s; raise ray\.start_timeout"):
            await pool.start()


async def test_a_broken_replica_does_not_swallow_the_queue(tmp_path: Path) -> None:
    async with pool_of(Worker, tmp_path, count=2) as pool:
        await pool.start()
        await until(pool.stats, all_ready)
        values = range(30)
        results = await asyncio.gather(*(pool.submit(Worker.echo_unless_lemon, v, weight=1) for v in values))
        assert results == list(values)
        assert pool.stats().done == len(values)


@pytest.mark.parametrize("error", [EngineError("too long; shorten it"), DataError("row 3 is empty; fill it")])
async def test_an_error_of_the_request_is_not_tried_again(tmp_path: Path, error: PmpoError) -> None:
    async with pool_of(Worker, tmp_path, count=1) as pool:
        await pool.start()
        with pytest.raises(type(error)) as raised:
            await pool.submit(Worker.refuse, error, weight=1)
        assert (type(raised.value), str(raised.value)) == (type(error), str(error))
        assert pool.stats().retries == 0
        assert await pool.submit(Worker.echo, 7, weight=1) == 7


async def test_a_unit_that_fails_everywhere_ends_with_the_last_reason(tmp_path: Path) -> None:
    async with pool_of(Worker, tmp_path, count=2) as pool:
        await pool.start()
        with pytest.raises(EngineError, match=r"3 tries .* RuntimeError: always broken$"):
            await pool.submit(Worker.break_down, weight=1)
        assert pool.stats().retries == 2
        assert await pool.submit(Worker.echo, 7, weight=1) == 7


async def test_a_unit_that_kills_replicas_fails_alone(tmp_path: Path) -> None:
    async with pool_of(Worker, tmp_path, count=1, slots=2) as pool:
        await pool.start()
        # Two more are sent to the one replica with the poison, which takes it down.
        poison = asyncio.ensure_future(pool.submit(Worker.die, weight=9))
        blameless = [asyncio.ensure_future(pool.submit(Worker.echo, v, 0.3, weight=1)) for v in range(3)]
        # Once beside others, which may have been the cause, and three times alone.
        with pytest.raises(EngineError, match=r"4 tries of one request failed"):
            await poison
        assert await asyncio.gather(*blameless) == [0, 1, 2]


async def test_closing_fails_those_who_wait_and_those_who_come_later(tmp_path: Path) -> None:
    async with pool_of(Worker, tmp_path, count=1) as pool:
        await pool.start()
        units = [asyncio.ensure_future(pool.submit(Worker.echo, 1, 600, weight=1)) for _ in range(5)]
        await until(pool.stats, lambda stats: (stats.in_flight, stats.queued) == (2, 3))
        await pool.close()
        for unit in (*units, pool.submit(Worker.echo, 1, weight=1)):
            with pytest.raises(ResourceError, match=r"the scorer pool was closed"):
                await unit
        await pool.close()
        assert pool.stats().replicas == ()


async def test_a_cancelled_caller_takes_its_unit_out_of_the_queue(tmp_path: Path) -> None:
    async with pool_of(Worker, tmp_path, count=1) as pool:
        await pool.start()
        units = [asyncio.ensure_future(pool.submit(Worker.log, v, weight=1)) for v in range(4)]
        await until(pool.stats, lambda stats: stats.queued == 2)
        units[2].cancel()
        results = await asyncio.gather(*units, return_exceptions=True)
        assert [results[at] for at in (0, 1, 3)] == [0, 1, 3]
        assert isinstance(results[2], asyncio.CancelledError)
        assert (tmp_path / "log").read_text().split() == ["0", "1", "3"]


async def test_the_longest_unit_goes_first_and_equals_keep_their_order(tmp_path: Path) -> None:
    async with pool_of(Worker, tmp_path, count=1) as pool:
        weights = [1, 5, 3, 5, 1]
        units = [
            asyncio.ensure_future(pool.submit(Worker.log, v, weight=weight))
            for v, weight in enumerate(weights)
        ]
        await until(pool.stats, lambda stats: stats.queued == len(weights))
        await pool.start()
        await asyncio.gather(*units)
        assert (tmp_path / "log").read_text().split() == ["1", "3", "2", "0", "4"]


class Recorder:
    """A generator that notes its batches, takes a moment for each, and refuses some prompts."""

    def __init__(self, refused: str = "", error: Exception | None = None) -> None:
        self.batches: list[list[str]] = []
        self._refused = refused
        self._error = error
        self._inner = SimulatedGenerator("m")

    def info(self) -> EngineInfo:
        return INFO

    def generate(self, requests: Sequence[GenerateRequest]) -> list[GenerateResult]:
        self.batches.append([request.prompt for request in requests])
        time.sleep(0.1)
        if self._error is not None and self._refused in self.batches[-1]:
            raise self._error
        return self._inner.generate(requests)


async def batched(
    engine: Recorder, prompts: str, limit: int, n: int = 1
) -> list[GenerateResult | BaseException]:
    """The results of simultaneous calls, one for each letter of `prompts`."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        batcher = ThreadedGenerator(engine, limit, thread)
        calls = [batcher.generate(GenerateRequest(prompt, n=n)) for prompt in prompts]
        return await asyncio.gather(*calls, return_exceptions=True)


async def test_calls_that_wait_while_the_engine_is_busy_are_joined() -> None:
    engine = Recorder()
    with ThreadPoolExecutor(max_workers=1) as thread:
        batcher = ThreadedGenerator(engine, 6, thread)
        first = asyncio.ensure_future(batcher.generate(GenerateRequest("a", n=2)))
        async with asyncio.timeout(60):
            while not engine.batches:  # noqa: ASYNC110 - set from the engine's thread
                await asyncio.sleep(0)
        requests = [GenerateRequest(prompt, n=2) for prompt in "bcdef"]
        results = await asyncio.gather(*map(batcher.generate, requests))
        await first
    assert engine.batches == [["a"], ["b", "c", "d"], ["e", "f"]]
    assert results == SimulatedGenerator("m").generate(requests)


async def test_a_request_larger_than_a_batch_runs_alone() -> None:
    engine = Recorder()
    results = await batched(engine, "ab", limit=2, n=3)
    assert engine.batches == [["a"], ["b"]]
    assert not any(isinstance(result, BaseException) for result in results)


@pytest.mark.parametrize("error", [EngineError("too long"), DataError("no such row")])
async def test_a_request_at_fault_fails_alone_in_its_batch(error: PmpoError) -> None:
    engine = Recorder("b", error)
    results = await batched(engine, "abc", limit=8)
    assert results[1] is error
    assert [results[0], results[2]] == SimulatedGenerator("m").generate(
        [GenerateRequest("a"), GenerateRequest("c")]
    )


async def test_a_broken_engine_fails_its_whole_batch_without_another_try() -> None:
    engine = Recorder("b", RuntimeError("out of memory"))
    results = await batched(engine, "abc", limit=8)
    assert [str(result) for result in results] == ["out of memory"] * 3
    assert len(engine.batches) == 1


async def test_scoring_before_the_start_of_a_pool_waits_for_it(tmp_path: Path) -> None:
    async with pool_of(Worker, tmp_path, count=1) as pool:
        early = asyncio.ensure_future(pool.submit(Worker.echo, 3, weight=1))
        await pool.start()
        assert await early == 3
        assert pool.stats().busy_seconds > 0


class Environment:
    async def threads(self) -> str | None:
        return os.environ.get("OMP_NUM_THREADS")


async def test_an_actor_gets_the_threads_of_its_plan() -> None:
    plan = ReplicaPlan(1, num_cpus=0.5, num_gpus=0, memory_bytes=None, threads=3, device="cpu")
    actor: Any = ray.remote(Environment).options(**actor_options(plan)).remote()
    assert await actor.threads.remote() == "3"
    ray.kill(actor)


class BadFirstConstructor(Worker):
    """Its constructor fails in the first process that is made for it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        try:
            (folder / "constructed").touch(exist_ok=False)
        except FileExistsError:
            return
        raise OSError("no space left on device")


async def test_a_constructor_that_fails_is_tried_again(tmp_path: Path) -> None:
    async with pool_of(BadFirstConstructor, tmp_path, count=1) as pool:
        await pool.start()
        assert await pool.submit(Worker.echo, 3, weight=1) == 3
        assert pool.stats().lost == 1


async def test_a_replica_that_stands_still_is_given_up(tmp_path: Path) -> None:
    async with pool_of(Worker, tmp_path, count=2, grace=1.0) as pool:
        await pool.start()
        await until(pool.stats, all_ready)
        assert await asyncio.gather(*(pool.submit(Worker.echo, v, weight=1) for v in range(6))) == list(
            range(6)
        )
        victim = pool.stats().replicas[0]
        os.kill(int(victim.where.rpartition(":")[2]), signal.SIGSTOP)
        assert await asyncio.gather(*(pool.submit(Worker.echo, v, weight=1) for v in range(6))) == list(
            range(6)
        )
        assert pool.stats().lost == 1
        assert victim.id not in {replica.id for replica in pool.stats().replicas}
        kill(victim.where)


async def test_idle_replicas_give_their_place_back(tmp_path: Path) -> None:
    async with pool_of(Worker, tmp_path, count=3, minimum=0, idle_seconds=0.5) as pool:
        await pool.start()
        await asyncio.gather(*(pool.submit(Worker.echo, v, 0.5, weight=1) for v in range(12)))
        await until(pool.stats, lambda stats: not stats.replicas)
        assert pool.stats().lost == 0
        assert await pool.submit(Worker.echo, 3, weight=1) == 3


async def test_a_replica_over_several_gpus_has_a_placement_group(tmp_path: Path) -> None:
    plan = ReplicaPlan(
        1, num_cpus=0.5, num_gpus=2.0, memory_bytes=None, threads=1, device="cuda", tensor_parallel=2
    )
    replica = RayLauncher(Worker, (tmp_path,), plan).launch()
    assert (await replica.ping()).startswith("here:")
    taken = {name: count for name, count in ray.available_resources().items() if name in ("CPU", "GPU")}
    assert taken == {"CPU": 3.5, "GPU": 2.0}
    replica.end()
    async with asyncio.timeout(60):
        while ray.available_resources().get("GPU") != 4.0:  # noqa: ASYNC110 - a state that is polled
            await asyncio.sleep(0.1)


async def test_a_lost_node_is_distinguished_from_a_lost_process(tmp_path: Path) -> None:
    """On a separate cluster, since a process can have only one connection to Ray.

    The fates come back in a file: Ray's own thread prints of lost workers in the middle of a line.
    """
    program = (
        "import asyncio, os, signal, sys\n"
        "from pathlib import Path\n"
        "import ray\n"
        "from ray.cluster_utils import Cluster\n"
        "from pmpo_ray.actors.handles import ReplicaLostError, ReplicaUnreachableError\n"
        "from pmpo_ray.actors.launcher import RayLauncher\n"
        "from pmpo_ray.actors.resources import ReplicaPlan\n"
        "class Sleeper:\n"
        "    async def ping(self): return str(os.getpid())\n"
        "    async def start(self): return None\n"
        "    async def nap(self): await asyncio.sleep(60)\n"
        "async def fate(replica, end):\n"
        "    pid = int(await replica.ping())\n"
        "    nap = asyncio.create_task(replica.call('nap'))\n"
        "    await asyncio.sleep(0.2)\n"
        "    end(pid)\n"
        "    try:\n"
        "        await nap\n"
        "        return 'answered'\n"
        "    except ReplicaLostError as error:\n"
        "        return error.blameless\n"
        "    except ReplicaUnreachableError:\n"
        "        pass\n"
        "    while True:\n"
        "        try:\n"
        "            await replica.ping()\n"
        "        except ReplicaUnreachableError:\n"
        "            await asyncio.sleep(0.2)\n"
        "        except ReplicaLostError as error:\n"
        "            return error.blameless\n"
        "async def main():\n"
        "    cluster = Cluster(initialize_head=True, head_node_args={'num_cpus': 0})\n"
        "    node = cluster.add_node(num_cpus=2)\n"
        "    ray.init(address=cluster.address, log_to_driver=False)\n"
        "    plan = ReplicaPlan(1, 1, 0, None, threads=1, device='cpu')\n"
        "    launcher = RayLauncher(Sleeper, (), plan)\n"
        "    killed = lambda pid: os.kill(pid, signal.SIGKILL)\n"
        "    fates = [await fate(launcher.launch(), killed)]\n"
        "    lost = lambda pid: cluster.remove_node(node, allow_graceful=False)\n"
        "    fates.append(await fate(launcher.launch(), lost))\n"
        "    Path(sys.argv[1]).write_text(repr(fates))\n"
        "    ray.shutdown(); cluster.shutdown()\n"
        "asyncio.run(main())\n"
    )
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", program, str(tmp_path / "fates")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "fates").read_text() == "[False, True]"
