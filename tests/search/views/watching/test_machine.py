"""How busy a machine is, as far as it can be found out."""

from search.views.machine import Machine

BEFORE = "cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 1 1 1 1\n"
AFTER = "cpu  180 0 170 850 0 0 0 0 0 0\ncpu0 1 1 1 1\n"
MEMORY = "MemTotal:       16777216 kB\nMemFree:  1 kB\nMemAvailable:    4194304 kB\n"
SMI = """#!/bin/sh
echo "35, 20480, 81920"
echo "45, 10240, 81920"
"""


def smi(tmp_path, monkeypatch, script):
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text(script, "utf-8")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent), prepend=":")


def test_cores_memory_and_gpus_are_told(tmp_path, monkeypatch):
    smi(tmp_path, monkeypatch, SMI)
    (tmp_path / "stat").write_text(BEFORE, "utf-8")
    (tmp_path / "meminfo").write_text(MEMORY, "utf-8")
    machine = Machine(tmp_path)
    (tmp_path / "stat").write_text(AFTER, "utf-8")

    words = machine.look()

    assert "CPU 75 % of" in words
    assert "memory 12.0 of 16.0 GiB" in words
    assert "GPU 0 35 % 20 of 80 GiB   GPU 1 45 % 10 of 80 GiB" in words


def test_many_gpus_are_summed_up(tmp_path, monkeypatch):
    smi(tmp_path, monkeypatch, '#!/bin/sh\nfor i in 1 2 3 4 5 6 7 8; do echo "50, 1024, 2048"; done\n')

    assert "8 GPUs 50 % 8 of 16 GiB" in Machine(tmp_path).look()


def test_what_cannot_be_found_out_is_left_out(tmp_path, monkeypatch):
    smi(tmp_path, monkeypatch, "#!/bin/sh\nexit 9\n")

    words = Machine(tmp_path / "nowhere").look()

    assert words.startswith("load ")
    assert "GPU" not in words
    assert "memory" not in words
