"""Headless Chromium, driven by its DevTools protocol."""

import base64
import contextlib
import itertools
import json
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

PROGRAM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
]
DEADLINE = 60  # seconds


class Tab:
    """One page.

    Attributes:
        messages: What the page wrote to the console, and errors of its scripts.
        folder: Where downloads go.
    """

    def __init__(self, connection, folder):
        self._connection = connection
        self._numbers = itertools.count(1)
        self.messages = []
        self.folder = folder
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))

    def call(self, method, **parameters):
        """Call a method of the protocol and return its result."""
        number = next(self._numbers)
        self._connection.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._connection.recv(DEADLINE))
            kind, content = answer.get("method"), answer.get("params", {})
            if kind == "Runtime.exceptionThrown":
                self.messages.append(content["exceptionDetails"]["exception"].get("description"))
            elif kind == "Runtime.consoleAPICalled":
                self.messages.append(str(content["args"]))
            elif kind == "Log.entryAdded":
                self.messages.append(content["entry"]["text"])
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def run(self, script):
        """Run JavaScript, wait for its promise, and return its value."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait(self, condition):
        """Wait until JavaScript is true."""
        end = time.monotonic() + DEADLINE
        while not self.run(f"Boolean({condition})"):
            assert time.monotonic() < end, (condition, self.messages, self.run("document.body.innerText"))
            time.sleep(0.05)

    def open(self, address, width=1280, height=800, mobile=False, scale=1):
        """Show a page in a window of this size."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=mobile,
        )
        self.call("Emulation.setTouchEmulationEnabled", enabled=mobile)
        self.call("Page.navigate", url=address)
        self.wait("document.readyState === 'complete'")

    def drop(self, path):
        """Drop a file onto the page."""
        content = base64.b64encode(Path(path).read_bytes()).decode()
        self.run(
            f"""(() => {{
            const bytes = Uint8Array.from(atob("{content}"), (x) => x.charCodeAt(0));
            const data = new DataTransfer();
            data.items.add(new File([bytes], "{Path(path).name}"));
            document.body.dispatchEvent(new DragEvent("drop", {{ dataTransfer: data, bubbles: true }}));
            }})()"""
        )

    def screenshot(self, path, whole=False):
        """Write an image of the window, or of the whole page."""
        image = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        Path(path).write_bytes(base64.b64decode(image["data"]))

    def downloaded(self, name):
        """Wait for a download and return its content."""
        path, end = self.folder / name, time.monotonic() + DEADLINE
        while not path.is_file() or not path.stat().st_size:
            assert time.monotonic() < end, list(self.folder.iterdir())
            time.sleep(0.05)
        return path.read_bytes()


@contextlib.contextmanager
def chromium():
    """Yield a tab of a new browser."""
    from websockets.sync.client import connect

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        downloads = Path(folder, "downloads")
        downloads.mkdir()
        process = subprocess.Popen(
            [PROGRAM, *FLAGS, f"--user-data-dir={folder}/profile", "about:blank"],
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            line = next(line for line in process.stderr if "DevTools listening" in line)
            port = re.search(r":(\d+)/", line)[1]
            with connect(_page(port), max_size=None, proxy=None) as connection:
                yield Tab(connection, downloads)
        finally:
            process.terminate()
            process.wait(30)
            process.stderr.close()


def _page(port):
    from urllib.request import urlopen

    with urlopen(f"http://127.0.0.1:{port}/json") as answer:
        return next(tab["webSocketDebuggerUrl"] for tab in json.load(answer) if tab["type"] == "page")
