"""What the benchmarks share: processes that never outlive the benchmark, figures from /proc, and a live source.

Everything talks over 127.0.0.1, on ports the kernel gives.
"""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TICKS = os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """The benchmark cannot go on; the text says why."""


def say(text):
    """Tells how far it is. Results go to stdout, this does not."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def main(run):
    """Runs a benchmark so that every way out of it, signals included, ends its processes and removes its folder."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        run()
    except Failed as failure:
        say(failure)
        sys.exit(1)


def weir_program(given=None):
    """The release build, or the program that is given."""
    program = Path(given or os.environ.get("DEV_WEIR") or ROOT / "target/release/weir")
    if not os.access(program, os.X_OK):
        raise Failed(f"there is no {program}: build it with 'cargo build --release --locked', or use ./dev bench")
    return str(program.resolve())


class Stage:
    """A folder and the processes that work in it."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="weir-bench."))
        self.processes = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # From here on a signal has to wait: cleaning up takes a few seconds at most.
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        self.end(self.processes, patience=3)
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, command, log):
        """Starts a process of its own session, so that Ctrl-C reaches only us; it is killed should we be."""
        with open(self.folder / log, "ab") as out:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *command],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=self.folder, start_new_session=True,
            )
        process.log = self.folder / log
        self.processes.append(process)
        return process

    def end(self, processes, number=signal.SIGTERM, patience=30):
        """Asks the processes to end, each by its id, and kills those that do not. Gives the number that had to be."""
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)
        deadline = time.monotonic() + patience
        killed = 0
        for process in list(processes):
            try:
                process.wait(max(0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                killed += 1
            if process in self.processes:
                self.processes.remove(process)
        return killed


def check_alive(processes):
    """Fails with the end of the log of a process that has ended."""
    for process in processes:
        if process.poll() is not None:
            tail = process.log.read_text(errors="replace")[-2000:]
            raise Failed(f"{process.args[4]} has ended with {process.returncode}; the end of its log:\n{tail}")


def wait_until(what, ready, processes=(), limit=60):
    """Waits until `ready` says so, as long as the processes live."""
    deadline = time.monotonic() + limit
    while not ready():
        check_alive(processes)
        if time.monotonic() > deadline:
            raise Failed(f"{what}: nothing after {limit} s")
        time.sleep(0.05)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def listening(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# ---------------------------------------------------------------------------------------------------------------------
# Figures


def cpu_seconds(pid):
    """What the process has used, its threads that have ended included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def sizes(pid):
    """Resident and proportional bytes, threads, descriptors."""
    values = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, rest = line.partition(":")
        values[name] = int(rest.split()[0]) * 1024
    threads = len(os.listdir(f"/proc/{pid}/task"))
    return values["Rss"], values["Pss"], threads, len(os.listdir(f"/proc/{pid}/fd"))


# ---------------------------------------------------------------------------------------------------------------------
# The live source


class Source:
    """A stream on nginx-rtmp: 720p30 H.264 without B-frames, a keyframe every 2 s, and AAC; 1 Mbit/s together.

    It is encoded once, before anything is measured, and then published again and again without transcoding.
    """

    SECONDS = 30

    def __init__(self, stage, subscribers):
        self.medium = self.encoded(stage)
        self.tracks = packets(self.medium)
        bits = sum(sum(size for size, _ in track) for track in self.tracks.values()) * 8
        say(f"the medium has {bits / self.SECONDS / 1e6:.2f} Mbit/s")

        self.nginx, self.port = start_nginx(stage, subscribers)
        self.publisher = stage.start([
            "ffmpeg", "-nostdin", "-loglevel", "warning", "-re", "-stream_loop", "-1", "-i", str(self.medium),
            "-c", "copy", "-f", "flv", f"rtmp://127.0.0.1:{self.port}/live/source",
        ], "publisher.log")

    def encoded(self, stage, rate="900k"):
        """The medium's file; `rate` is that of its pictures."""
        medium = stage.folder / "medium.flv"
        say("encoding the medium")
        encoder = stage.start([
            "ffmpeg", "-nostdin", "-loglevel", "error",
            "-f", "lavfi", "-i", f"testsrc2=size=1280x720:rate=30:duration={self.SECONDS}",
            "-f", "lavfi", "-i", f"sine=frequency=330:beep_factor=4:sample_rate=44100:duration={self.SECONDS}",
            "-vf", "noise=alls=8:allf=t",
            "-c:v", "libx264", "-preset", "superfast", "-profile:v", "main", "-pix_fmt", "yuv420p", "-bf", "0",
            "-g", "60", "-keyint_min", "60", "-sc_threshold", "0", "-b:v", rate, "-maxrate", rate,
            "-bufsize", rate, "-c:a", "aac", "-b:a", "96k", "-ac", "2", str(medium),
        ], "encoder.log")
        if encoder.wait() != 0:
            raise Failed(f"the medium cannot be encoded:\n{encoder.log.read_text()}")
        return medium

    def uri(self, number):
        """One stream; the query only makes the addresses differ, as a server refuses to pull one twice."""
        return f"rtmp://127.0.0.1:{self.port}/live/source?n={number}"

    def check(self):
        check_alive([self.nginx, self.publisher])

    def missing(self, recording):
        """What a recording (its files in order) lacks, as text; None if it is an unbroken piece of the stream.

        A packet is known by its size and a keyframe by being one: parsers put parameter sets before those.
        """
        found = {"video": [], "audio": []}
        for file in recording:
            for kind, track in packets(file).items():
                found[kind] += track
        problems = []
        for kind, all_of_it in self.tracks.items():
            token = lambda packet: "keyframe" if kind == "video" and packet[1] else packet[0]
            medium, track = [token(p) for p in all_of_it], [token(p) for p in found[kind]]
            best = max((agreement(medium, start, track) for start in range(len(medium))), default=0)
            if not track or best < len(track):
                problems.append(f"{kind} breaks after {best} of {len(track)} packets")
        return ", ".join(problems) or None, len(found["video"]), len(found["audio"])


def agreement(medium, start, track):
    """How many packets of the track are those of the endless medium from `start` on."""
    length = len(medium)
    for index, packet in enumerate(track):
        if packet != medium[(start + index) % length]:
            return index
    return len(track)


def packets(file):
    """Size and keyframe flag of each packet, by track."""
    text = subprocess.run(
        ["ffprobe", "-v", "error", "-show_entries", "packet=codec_type,size,flags", "-of", "csv=p=0", str(file)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    ).stdout
    tracks = {"video": [], "audio": []}
    for line in text.splitlines():
        kind, size, flags = line.split(",")[:3]
        tracks[kind].append((int(size), flags.startswith("K")))
    return tracks


def start_nginx(stage, subscribers):
    port = free_port()
    conf = stage.folder / "nginx.conf"
    conf.write_text(f"""
load_module /usr/lib/nginx/modules/ngx_rtmp_module.so;
daemon off;
master_process off;
pid {stage.folder}/nginx.pid;
error_log {stage.folder}/nginx.log warn;
worker_rlimit_nofile {subscribers + 1024};
events {{ worker_connections {subscribers + 512}; }}
rtmp {{
  access_log off;
  server {{
    listen 127.0.0.1:{port};
    chunk_size 4096;
    # Sound would come at once and pictures from the next keyframe on: all start with both, at a keyframe.
    application live {{ live on; wait_key on; wait_video on; }}
  }}
}}
""")
    path = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"
    program = shutil.which("nginx", path=path)
    if not program:
        raise Failed("there is no nginx: ./dev setup installs it")
    nginx = stage.start(
        [program, "-p", str(stage.folder), "-e", str(stage.folder / "nginx.log"), "-c", str(conf)], "nginx.out"
    )
    wait_until("nginx", lambda: listening(port), [nginx], 10)
    return nginx, port


# ---------------------------------------------------------------------------------------------------------------------
# weir


class Weir:
    """A weir with a data folder of its own, and a kept connection to its REST API."""

    def __init__(self, stage, program, settings, log="weir.log", host="127.0.0.1"):
        self.data = Path(tempfile.mkdtemp(prefix="data.", dir=stage.folder))
        names = ("http.port", "https.port", "ws.port", "wss.port", "webrtc.port", "rtmp.port", "ssh.port")
        ports = dict.fromkeys(names, "0")
        settings = {"ip_local": "127.0.0.1", **ports, "record_dir": self.data / "records", **settings}
        words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        self.process = stage.start([program, "serve", "--data", str(self.data), *words], log)
        ports = self.data / "ports.json"
        wait_until("weir", ports.exists, [self.process], 20)
        self.ports = json.loads(ports.read_text())
        self.connection = http.client.HTTPConnection(host, self.ports["http.port"], timeout=30)

    def call(self, path, **fields):
        """One REST call; gives the body's bytes."""
        body = json.dumps(fields)
        self.connection.request("POST", f"/rest-api{path}", body, {"Content-Type": "application/json"})
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise Failed(f"{path} answers {answer.status}: {text.decode(errors='replace')}")
        return text


# ---------------------------------------------------------------------------------------------------------------------
# Tables


def table(rows):
    """A Markdown table; the first row is its head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def machine():
    """What it was measured on, in a line."""
    model = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), "unknown processor")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    version = lambda *command: subprocess.run(command, capture_output=True, text=True, check=False).stdout.split("\n")[0]
    gstreamer = version("gst-launch-1.0", "--version").replace("gst-launch-1.0 version", "GStreamer")
    ffmpeg = " ".join(version("ffmpeg", "-version").split()[:3])
    return (f"{len(os.sched_getaffinity(0))} cores of {model}, {memory:.0f} GB, Linux {os.uname().release}, "
            f"{gstreamer}, {ffmpeg}")


@contextmanager
def timed(result):
    """Appends the milliseconds its body takes."""
    began = time.perf_counter()
    yield
    result.append((time.perf_counter() - began) * 1000)
