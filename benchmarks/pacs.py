"""A node between dcmtk and Orthanc: many instances from several senders, while the node is killed and Orthanc stops.

    python benchmarks/pacs.py [--model RUN] [--count 500] [--senders 4] [--kills 2] [--size 256]

needs Debian's orthanc, orthanc-dicomweb and dcmtk, and listens on loopback only. It prints instances a second, memory
and latency, and ends with status 1 unless Orthanc holds the results of every instance exactly once. Without --model the
network marks what is bright, so that the node is measured and not a network.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from made_node import encoded, instance
from made_orthanc import NodeProcess, free_port, lacking, node_command, orthanc, send, until
from made_trained import made_trained


def memory(pid: int) -> dict[int, float]:
    """The peak of a process and of its children, MiB."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/status"):
        try:
            lines = dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
        except (OSError, ValueError):
            continue
        if pid in (int(lines["Pid"]), int(lines["PPid"])) and "VmHWM" in lines:
            found[int(lines["Pid"])] = int(lines["VmHWM"].split()[0]) / 1024
    return found


def main() -> int:
    """Measure once."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", metavar="RUN")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--senders", type=int, default=4)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--size", type=int, default=256, help="rows of each image")
    parser.add_argument("--outage", type=float, default=10, help="seconds without Orthanc")
    options = parser.parse_args()
    if absent := lacking():
        print(f"not installed: {', '.join(absent)}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as name:
        return measure(Path(name), options)


def measure(folder: Path, options: argparse.Namespace) -> int:
    """Send, kill, stop, wait, count."""
    model = options.model or made_trained(folder / "run", bright=True, image_size=256)
    files = []
    for number in range(options.count):
        files.append(folder / f"{number}.dcm")
        files[-1].write_bytes(encoded(instance(number, size=options.size)))
    port, spool = free_port(), folder / "spool"
    peaks: dict[int, float] = {}
    with orthanc(folder / "pacs", node_port=port) as pacs:
        to = f"127.0.0.1:{pacs.dicom_port}:{pacs.AET}"
        command = node_command("--model", model, "--spool", spool, "--send-to", to, "--port", port, "--min-free", 0)
        node = NodeProcess([*command, "--status-port", str(free_port())], folder / "node.log")
        started = time.monotonic()
        node.start(seconds=600)
        print(f"start: {time.monotonic() - started:.1f} s (load {os.getloadavg()[0]:.1f})", flush=True)
        database = sqlite3.connect(f"file:{spool}/done.sqlite?mode=ro", uri=True)

        def done() -> int:
            if node.process is not None and node.process.poll() is None:
                peaks.update(memory(node.process.pid))
            return int(database.execute("SELECT count(*) FROM done").fetchone()[0])

        def send_all(part: int) -> None:
            mine = files[part :: options.senders]
            # In portions, as a device would; a portion that was cut off is sent again.
            for start in range(0, len(mine), 25):
                until(lambda start=start: send(mine[start : start + 25], port=port) == 0, "sent", seconds=3600)

        began = time.monotonic()
        senders = [threading.Thread(target=send_all, args=(part,)) for part in range(options.senders)]
        for sender in senders:
            sender.start()
        stops = {options.count // 3: "outage"}
        stops |= {options.count * (kill + 1) // (options.kills + 2): "kill" for kill in range(options.kills)}
        lost = 0.0
        for reached, what in sorted(stops.items()):
            until(lambda reached=reached: done() >= reached, f"{reached} done", seconds=3600)
            pause = time.monotonic()
            if what == "kill":
                node.kill()
                node.start(seconds=600)
            else:
                pacs.stop()
                time.sleep(options.outage)
                pacs.start()
            lost += time.monotonic() - pause
            print(f"{what} after {reached}: {time.monotonic() - pause:.1f} s", flush=True)
        for sender in senders:
            sender.join()
        until(lambda: done() >= options.count, "all done", seconds=3600)
        seconds = time.monotonic() - began
        rows = np.array(
            database.execute("SELECT segmented - received, finished - received, seconds FROM done").fetchall()
        )
        status = node.stop()
        counts = {modality: len(pacs.instances(modality)) for modality in ("SR", "SEG", "OT")}
        twice = sum(count > 1 for count in Counter(each["SOPInstanceUID"] for each in pacs.instances()).values())
    left = sum(1 for each in ("incoming", "outgoing", "sent", "failed") for _ in (spool / each).iterdir())
    print(f"{options.count} instances of {options.size} x {options.size + 8} pixels, {options.senders} senders")
    print(f"results in Orthanc: {counts}, twice {twice}, left in the spool {left}")
    print(f"{options.count / seconds:.2f} instances/s in all, {options.count / (seconds - lost):.2f} without stops")
    for title, column in zip(("taken to segmented", "taken to confirmed", "work"), rows.T, strict=True):
        middle, late = np.percentile(column, [50, 95])
        print(f"{title}: median {middle:.2f} s, 95 % {late:.2f} s")
    # The worker's process holds torch or OpenVINO, the node's none of them.
    print("peak memory, MiB:", ", ".join(f"{value:.0f}" for value in sorted(peaks.values())))
    print(f"load {os.getloadavg()[0]:.1f}, exit status {status}")
    good = set(counts.values()) == {options.count} and not twice and not left and status == 0
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
