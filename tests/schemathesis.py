#!/usr/bin/env python3
"""Calls a weir of its own with everything its OpenAPI document allows, and more: no answer may be a server's error.

Schemathesis is installed, in the versions of requirements.txt, into an environment under target/.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import venv

ROOT = pathlib.Path(__file__).resolve().parent.parent
VENV = ROOT / "target" / "schemathesis"
REQUIREMENTS = ROOT / "tests" / "requirements.txt"
EXAMPLES = os.environ.get("EXAMPLES", "20")


def installed():
    """The program; installed anew when the requirements are others than last time."""
    mark = VENV / "requirements.txt"
    wanted = REQUIREMENTS.read_text()
    if not mark.exists() or mark.read_text() != wanted:
        venv.create(VENV, clear=True, with_pip=True)
        pip = [VENV / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", "-r", REQUIREMENTS]
        subprocess.run(pip, check=True)
        mark.write_text(wanted)
    return VENV / "bin" / "schemathesis"


def started(home):
    ports = ("http.port", "ws.port", "webrtc.port", "rtmp.port", "https.port", "wss.port", "ssh.port")
    sets = [f"{port}=0" for port in ports] + ["ip_local=127.0.0.1", "rest_max_requests=0", f"record_dir={home}/records"]
    arguments = [word for setting in sets for word in ("--set", setting)]
    log = open(home / "weir.log", "wb")
    program = ROOT / "target" / "debug" / "weir"
    weir = subprocess.Popen([program, "serve", "--data", home / "data", *arguments], stderr=log, cwd=home)
    written = home / "data" / "ports.json"
    for _ in range(200):
        if written.exists():
            return weir, json.loads(written.read_text())
        if weir.poll() is not None:
            break
        time.sleep(0.1)
    weir.kill()
    sys.exit(f"weir does not start:\n{(home / 'weir.log').read_text()}")


def publisher(port):
    """A stream, so that there is something to be found."""
    source = ["-re", "-f", "lavfi", "-i", "testsrc2=size=320x180:rate=15", "-c:v", "libx264", "-preset", "ultrafast"]
    shape = ["-pix_fmt", "yuv420p", "-bf", "0", "-g", "15", "-f", "flv", f"rtmp://127.0.0.1:{port}/live/cam"]
    return subprocess.Popen(["ffmpeg", "-v", "error", "-nostdin", *source, *shape])


def main():
    program = installed()
    with tempfile.TemporaryDirectory(prefix="weir-schemathesis-") as folder:
        home = pathlib.Path(folder)
        weir, ports = started(home)
        source = publisher(ports["rtmp.port"])
        try:
            url = f"http://127.0.0.1:{ports['http.port']}/rest-api/openapi.json"
            run = [program, "run", url, "--checks", "not_a_server_error", "--max-examples", EXAMPLES, "--no-color"]
            status = subprocess.run(run, cwd=home, timeout=900).returncode
        finally:
            source.terminate()
            source.wait()
            weir.send_signal(signal.SIGTERM)
            ended = weir.wait(30)
        if status or ended:
            print((home / "weir.log").read_text()[-4000:], file=sys.stderr)
            sys.exit(f"schemathesis ended with {status}, weir with {ended}")


main()
