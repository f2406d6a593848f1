"""environment.json: where a result came from, and what of that may change it."""

import subprocess

import train.folder
from train.folder import describe_environment, describe_placement, differences
from train.machine.devices import Placement


def test_what_may_change_the_bits_is_named_and_nothing_else():
    before = describe_environment() | describe_placement(Placement(devices=1))
    assert differences(before, before) == ""
    assert differences(before, before | {"platform": "another", "python": "4"}) == ""
    now = before | {"devices": 8, "parallel": "pmap", "packages": before["packages"] | {"grain": "9"}}
    grain = before["packages"]["grain"]
    assert differences(before, now) == f"grain was {grain}, is 9, devices was 1, is 8, parallel was jit, is pmap"


def test_what_an_older_version_did_not_write_down_is_no_difference():
    now = describe_environment() | describe_placement(Placement(devices=1))
    older = {name: value for name, value in now.items() if name not in ("devices", "parallel")}
    assert differences(older, now) == ""
    without_grain = {name: version for name, version in now["packages"].items() if name != "grain"}
    assert differences(older | {"packages": without_grain}, now) == ""


def test_the_revision_is_that_of_the_checkout_that_the_code_is_a_part_of(tmp_path, monkeypatch):
    def git(*words: str) -> None:
        subprocess.run(["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True)

    code = tmp_path / "lib" / "folder.py"
    code.parent.mkdir()
    code.touch()
    monkeypatch.setattr(train.folder, "__file__", str(code))
    assert describe_environment()["git_revision"] is None
    # In the checkout of another project, as an environment often is.
    git("init", "--quiet")
    git("commit", "--quiet", "--allow-empty", "--message", "theirs")
    assert describe_environment()["git_revision"] is None
    git("add", str(code))
    git("commit", "--quiet", "--message", "ours")
    revision = describe_environment()["git_revision"]
    assert revision is not None
    assert len(revision) == 40
    code.write_text("changed")
    assert describe_environment()["git_revision"] == f"{revision}+"
