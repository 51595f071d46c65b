"""Runs that lose their disk or their folder, against runs that did not."""

import errno
import io
import os
import shutil

import pytest
from stopped_runs import Interrupting, same, small_graphs, train


@pytest.fixture(scope="module")
def sources():
    return small_graphs()


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("nth", [1, 2])
def test_a_full_disk_leaves_the_state_before(sources, tmp_path, monkeypatch, call, nth):
    plain = Interrupting(0, None)
    whole = train(sources, objective=plain)
    train(sources, objective=plain, epochs=2, checkpoint=tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    true, calls = getattr(os, call), []

    def fails(*args):
        calls.append(args)
        return full_disk() if len(calls) == nth else true(*args)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fails)
        if call == "fsync" and nth == 2:  # the folder's own flush, which not every file system has
            train(sources, objective=plain, checkpoint=tmp_path, resume=True)
            return
        with pytest.raises(OSError, match=r"No space left on device.*still whole; make room") as caught:
            train(sources, objective=plain, checkpoint=tmp_path, resume=True)
    assert caught.value.errno == errno.ENOSPC
    left = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert before.items() <= left.items()
    assert not [n for n in left if n.startswith(".")]  # no half-written files
    assert same(whole, train(sources, objective=plain, checkpoint=tmp_path, resume=True))
    assert len(list(tmp_path.iterdir())) == 2  # what the failed attempt left was tidied


class Torn(io.RawIOBase):
    """A file on a disk that fills up in the middle of a write."""

    def __init__(self, handle):
        self.handle = handle

    def writable(self):
        return True

    def write(self, blob):
        os.write(self.handle, bytes(blob[: len(blob) // 2]))
        full_disk()

    def close(self):
        if not self.closed:
            os.close(self.handle)
        super().close()


def test_a_disk_that_fills_up_in_the_middle_of_a_write(sources, tmp_path, monkeypatch):
    train(sources, epochs=1, checkpoint=tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr("graphfm.bundle.os.fdopen", lambda handle, mode: Torn(handle))
        with pytest.raises(OSError, match="No space left on device"):
            train(sources, checkpoint=tmp_path, resume=True)
    assert before == {p.name: p.read_bytes() for p in tmp_path.iterdir()}


def test_a_folder_that_vanishes_is_made_again(sources, tmp_path):
    folder = tmp_path / "run"
    whole = train(sources)
    shorter = train(sources, objective=Interrupting(15, lambda: shutil.rmtree(folder)), checkpoint=folder)
    assert same(whole, shorter)
    assert same(whole, train(sources, objective=Interrupting(0, None), checkpoint=folder, resume=True))


def test_a_folder_that_cannot_be_made_again_is_a_clear_error(sources, tmp_path):
    folder = tmp_path / "run"

    def swap():
        shutil.rmtree(folder)
        folder.write_text("in the way")

    with pytest.raises(OSError, match=r"cannot write to this folder .*choose a folder you may write to.*run"):
        train(sources, objective=Interrupting(15, swap), checkpoint=folder)
    assert folder.read_text() == "in the way"


def test_an_unwritable_folder_is_found_before_the_work(sources, tmp_path):
    (tmp_path / "file").write_text("")
    started = []
    objective = Interrupting(1, lambda: started.append(True))
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match="cannot write to this folder"):
            train(sources, objective=objective, checkpoint=folder)
    assert not started
