import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lightning_cells.data import locking
from lightning_cells.data.locking import exclusive

HOLDER = """
import sys, time
from pathlib import Path
from lightning_cells.data.locking import exclusive
with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""

COUNTER = """
import sys
from pathlib import Path
from lightning_cells.data.locking import exclusive
folder = Path(sys.argv[1])
for _ in range(50):
    with exclusive(folder / "a.lock"):
        value = int((folder / "count").read_text())
        (folder / "count").write_text(str(value + 1))
"""


def test_file_holds_the_process_id_and_goes_at_the_end(tmp_path: Path) -> None:
    with exclusive(tmp_path / "a.lock"):
        assert (tmp_path / "a.lock").read_text() == str(os.getpid())
    assert not (tmp_path / "a.lock").exists()
    with pytest.raises(KeyError), exclusive(tmp_path / "a.lock"):
        raise KeyError
    assert not (tmp_path / "a.lock").exists()


def test_lock_of_a_killed_process_is_free(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "a.lock")], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        entered = threading.Event()

        def enter() -> None:
            with exclusive(tmp_path / "a.lock"):
                entered.set()

        thread = threading.Thread(target=enter)
        thread.start()
        assert not entered.wait(0.5)
        holder.kill()
        assert entered.wait(20)
        thread.join()
    assert f"waiting for process {holder.pid}" in capsys.readouterr().err


def test_file_left_behind_does_not_block(tmp_path: Path) -> None:
    (tmp_path / "a.lock").write_text("999999999")
    with exclusive(tmp_path / "a.lock"):
        assert (tmp_path / "a.lock").read_text() == str(os.getpid())


def test_no_two_processes_are_inside_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locking, "POLL_S", 0.001)
    (tmp_path / "count").write_text("0")
    script = COUNTER.replace("folder =", "from lightning_cells.data import locking; locking.POLL_S = 0.001\nfolder =")
    processes = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path)]) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert (tmp_path / "count").read_text() == "150"


def test_missing_folders_are_made_and_what_is_no_folder_is_an_error(tmp_path: Path) -> None:
    with exclusive(tmp_path / "new" / "a.lock"):
        assert (tmp_path / "new" / "a.lock").exists()
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"), exclusive(tmp_path / "file" / "a.lock"):
        pass
