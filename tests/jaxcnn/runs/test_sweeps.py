"""A sweep is the runs in a folder, whatever else is in it."""

import pytest

from jaxcnn.errors import UserError
from jaxcnn.runs.folder import create_run, open_sweep


def test_the_runs_come_by_name_and_nothing_else_does(tmp_path):
    for name in ("b", "a", "a-2"):
        create_run(tmp_path / name, {}, {}, {}, overwrite=False)
    create_run(tmp_path / "figures" / "deeper", {}, {}, {}, overwrite=False)
    (tmp_path / "table.csv").touch()
    assert [run.name for run in open_sweep(tmp_path)] == ["a", "a-2", "b"]


def test_a_folder_without_runs_is_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UserError, match=rf"{folder}: no run folder in it; .* train sweep"):
            open_sweep(folder)
