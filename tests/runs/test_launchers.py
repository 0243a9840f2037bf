"""What torchrun, srun and arrays of jobs say in the environment: which of them is followed."""

import pytest

from moreaugrad.runs import processes as module
from moreaugrad.runs.processes import processes


@pytest.mark.parametrize(
    "given",
    [("2", "2", "0"), ("a", "2", "0"), ("0", "0", "0"), ("0", "x", "0"), ("0", "2", "-1")],
)
def test_slurm_variables_that_contradict_are_refused(
    monkeypatch: pytest.MonkeyPatch, given: tuple[str, str, str]
) -> None:
    for name, value in zip(("PROCID", "NTASKS", "LOCALID"), given, strict=True):
        monkeypatch.setenv(f"SLURM_{name}", value)
    with pytest.raises(ValueError, match=f"SLURM_PROCID={given[0]}, SLURM_NTASKS={given[1]}"):  # noqa: SIM117
        with processes():
            pass


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WORLD_SIZE", "x"), ("WORLD_SIZE", "0"), ("WORLD_SIZE", "-2"), ("RANK", "x"),
        ("RANK", "2"), ("RANK", "-1"), ("RANK", None), ("LOCAL_RANK", "x"), ("LOCAL_RANK", "-1"),
        ("MASTER_PORT", None), ("MASTER_ADDR", ""),
    ],
)  # fmt: skip
def test_variables_of_torchrun_that_are_not_whole_are_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str | None
) -> None:
    given = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1",
             "MASTER_PORT": "1", name: value}  # fmt: skip
    for variable, text in given.items():
        monkeypatch.delenv(variable, raising=False)
        if text is not None:
            monkeypatch.setenv(variable, text)
    expected = rf"{name}.*torchrun.*got " + (f".*{value}" if value else "")
    with pytest.raises(ValueError, match=expected):  # noqa: SIM117
        with processes():
            pass


@pytest.mark.parametrize("value", ["", "1"])
def test_one_process_or_none_of_torchrun_is_a_task_of_srun(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """`srun torchrun --nproc-per-node 1` starts processes without a connection."""
    given = {"WORLD_SIZE": value, "RANK": "0", "LOCAL_RANK": "0", "SLURM_PROCID": "5",
             "SLURM_NTASKS": "8", "SLURM_LOCALID": "3"}  # fmt: skip
    for variable, text in given.items():
        monkeypatch.setenv(variable, text)
    with processes() as found:
        assert (found.size, found.local_rank, found.leads) == (1, 3, False)


def test_torchrun_goes_before_the_srun_that_started_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tasks of srun are one for each machine, and the batch script's own may be one."""
    given = {"WORLD_SIZE": "4", "RANK": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1",
             "MASTER_PORT": "1", "SLURM_PROCID": "1", "SLURM_NTASKS": "1",
             "SLURM_LOCALID": "1"}  # fmt: skip
    for variable, text in given.items():
        monkeypatch.setenv(variable, text)
    monkeypatch.setattr(module.dist, "init_process_group", lambda *words, **more: None)
    monkeypatch.setattr(module.dist, "destroy_process_group", lambda: None)
    with processes() as found:
        assert (found.rank, found.size, found.local_rank) == (2, 4, 0)
        assert found.follows is False


def test_tasks_of_srun_share_the_shard_of_their_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an array, whose number is read only where it is given as a shard."""
    for name, value in {"PROCID": "1", "NTASKS": "4", "ARRAY_TASK_ID": "3"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    with processes() as found:
        assert found.shard is None
    with processes("2/8") as found:
        assert (found.shard, found.leads) == ((2, 8), False)


def test_tasks_of_srun_are_processes_of_which_the_first_reports(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {"PROCID": "5", "NTASKS": "8", "LOCALID": "1"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    with processes() as found:
        assert (found.size, found.local_rank, found.leads) == (1, 1, False)
    monkeypatch.setenv("SLURM_PROCID", "0")
    with processes() as found:
        assert found.leads


def test_a_shard_of_torchrun_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"shard 0/2.*torchrun"):  # noqa: SIM117
        with processes("0/2"):
            pass
